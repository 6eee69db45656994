"""Archives of whole zoos (tar.gz): passed through once, indexed, read in places, downloaded, verified and packed.

From the bytes upwards; each line uses those above it.

    zlib_library, inflate       the C library; raw deflate, block by block
    gzip_header, gzip_stream    a gzip file in batches, with the boundaries at which inflation can begin
    seek_points                 such a boundary with what it needs, in a hundred bytes; and inflation from it
    resync                      where inflation can go on behind damage
    tar_headers, tar_members, tar_stream    the tar archive in it, as a stream of events
    names                       which members a zoo may have: the allow-list
    digests, lock               MD5 and CRC32C that survive a restart; one process at a time

    index                       what there is in an archive, and where: an SQLite file
    inflate_process, inflate_child, inflate_memory    inflating in a process beside the pass
    pump, seek_plan, contents, member_log, journal    the parts of one pass over an archive
    scan                        the pass
    run_rows, indexing          index and run table from a pass            zoo_stream, zoo_index
    checking                    a pass held against an index               zoo_verify
    finding, extract_plan, extract    runs fetched by an index             zoo_fetch
    download                    the whole archive                          zoo_download
    pack_tar, pack_checks, pack_plan, pack_stream, pack_files, pack    archives of one's own    zoo_pack
"""
