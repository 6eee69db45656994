"""Packaging of Heldout. Each requirement carries the reason why it is here."""

import pathlib
import re

import setuptools

INSTALL_REQUIRES = [
    "tensorflow>=2.18",  # models, training, checkpoints; 2.18 is the first release built for NumPy 2
    "tensorflow-datasets>=4.9.7",  # data sets in their stored order; 4.9.7 is the first to import beside NumPy 2
    "importlib_resources",  # needed by tensorflow-datasets, which does not declare it
    "dm-sonnet>=2.0.2",  # the published checkpoints are Sonnet modules; 2.0.2 runs on current TensorFlow
    "absl-py>=2.1",  # flags and program entry points
    "numpy>=2.0",  # arrays everywhere; 2.0 settled float32 promotion, on which normalisation relies
    "numba>=0.60",  # compiled loops over packed bits and over weights; 0.60 is the first release built for NumPy 2
    "scipy>=1.13",  # statistics of the scores; 1.13 is the first release built for NumPy 2
    "threadpoolctl>=3.1",  # keeps the waiting threads of NumPy's BLAS from taking TensorFlow's processors
    "gcsfs",  # gs:// addresses of the published zoos
    "fsspec",  # one interface to local, http(s) and gs:// objects; gcsfs is written for it
    "requests>=2.31",  # http(s) with proxies and certificates as users have them set up
    "urllib3>=2.2",  # below requests; 2.2 is the first whose read1 keeps what came before a cut
    "aiohttp",  # below gcsfs, whose connections are set up and whose errors are told apart
    "zlib-ng>=0.5",  # inflates half as fast again as zlib; the passes over archives wait for nothing else
    "google-crc32c>=1.5",  # checksums of objects in Google's storage and of TensorFlow's checkpoints, at memory speed
    "scikit-learn>=1.4",  # the bundled digits, the data set that needs no download
    "pyarrow>=16",  # Parquet and CSV tables; 16 is the first release built for NumPy 2
    "matplotlib>=3.9",  # figures of the report; 3.9 is the first release built for NumPy 2
    "Pillow",  # images of the report as PNG; judges and converts image files that become records
    "jinja2>=3",  # the report's template engine; 3 escapes by a stable interface
    "tqdm",  # progress bars
]

EXTRAS_REQUIRE = {
    "gpu": ["tensorflow[and-cuda]>=2.18"],  # CUDA libraries beside TensorFlow
    "tpu": ["tensorflow-tpu>=2.18"],  # TensorFlow built with libtpu
    "ray": ["ray>=2.40"],  # workers on a cluster
    "bench": ["jax>=0.4.30"],  # the loop that benchmark_training stands beside
    "dev": [
        "pytest>=8",  # the tests
        "pytest-xdist>=3",  # the tests on all cores
        "hypothesis>=6.100",  # fuzzing of the file readers
        "gcp-storage-emulator>=2022.6",  # gs:// addresses in tests, on loopback
        "ray>=2.40",  # the tests of workers on a cluster
        "tensorboard>=2.16",  # its own reader, for the tests of the event files
        "cryptography",  # certificates of the tests' own https server
        "ruff>=0.9",  # formatting and lint; pyproject.toml uses rule names of 0.9
        "mypy>=1.11",  # types on every public function
    ],
}

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.*)"', (HERE / "heldout" / "__init__.py").read_text(encoding="utf-8"))[1]

PROGRAMS = [
    "train_runs",
    "evaluate_run",
    "list_zoo",
    "zoo_status",
    "compute_scores",
    "render_report",
    "zoo_stream",
    "zoo_fetch",
    "zoo_download",
    "zoo_index",
    "zoo_verify",
    "zoo_pack",
    "evaluate_zoo",
    "build_indexed_tfrecords",
    "reproduce_consistency",
    "fit_datamodels",
    "plan_runs",
    "compare_scores",
    "merge_zoos",
    "compute_influence_functions",
    "train_on_most_influential",
    "ground_truth_effects",
    "aggregate_ground_truth",
    "detect_mislabeled",
    "compare_groups",
    "summarize_dataset",
    "compute_unique_information",
    "compute_ntk",
    "mix_sources",
    "animate_unique_information",
    "reproduce_unique_information",
    "train_model",
    "train_sweep",
    "compute_jacobian_stats",
    "merge_jacobian_stats",
    "aggregate_jacobian_stats",
    "plot_jacobian_stats",
    "plot_sensitivity",
]

setuptools.setup(
    name="heldout",
    version=VERSION,
    description="Memorization, influence and consistency of training examples, from zoos of models trained on subsets",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # Explicit, so that tests and benchmarks are never installed.
    packages=[
        "heldout",
        "heldout.datasets",
        "heldout.evaluation",
        "heldout.experiments",
        "heldout.models",
        "heldout.report",
        "heldout.running",
        "heldout.scoring",
        "heldout.training",
        "heldout.watching",
        "estimators",
        "estimators.curvature",
        "estimators.derivatives",
        "estimators.jacobian",
        "estimators.linearized",
        "estimators.ntk",
        "estimators.projections",
        "estimators.unique_information",
        "zoo",
        "zoo.archive",
        "zoo.remote",
        "scripts",
        "scripts.attribution",
        "scripts.jacobian_stats",
        "scripts.model_training",
        "scripts.unique_information",
    ],
    package_data={"heldout.report": ["templates/*"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": [f"{name} = scripts.{name}:main" for name in PROGRAMS]},
)
