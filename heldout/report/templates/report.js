"use strict";
(function () {
  const root = document.documentElement;
  root.classList.add("js");
  const data = JSON.parse(document.getElementById("payload").textContent);

  // ---- columns ---------------------------------------------------------------------------------------------------
  // kind: how a cell is written. Missing values are null: they sort last in either direction and are named in words.
  const COLUMNS = {
    examples: [
      { key: "index", title: "index", kind: "example", split: "train" },
      { key: "label", title: "class", kind: "label" },
      { key: "clean_label", title: "changed from", kind: "label" },
      { key: "memorization", title: "memorization", kind: "score" },
      { key: "standard_error", title: "± error", kind: "share" },
      { key: "accuracy_in", title: "right, trained on", kind: "share" },
      { key: "accuracy_heldout", title: "right, held out", kind: "share" },
      { key: "num_in", title: "runs in", kind: "whole" },
      { key: "num_heldout", title: "runs out", kind: "whole" },
      { key: "consistency", title: "consistency", kind: "share" },
      { key: "num_ratios", title: "ratios", kind: "whole" },
    ],
    pairs: [
      { key: "train_index", title: "train", kind: "example", split: "train" },
      { key: "train_label", title: "its class", kind: "label" },
      { key: "test_index", title: "test", kind: "example", split: "test" },
      { key: "test_label", title: "its class", kind: "label" },
      { key: "value", title: "subset influence", kind: "score" },
      { key: "standard_error", title: "± error", kind: "share" },
      { key: "low", title: "95 % from", kind: "score" },
      { key: "high", title: "to", kind: "score" },
      { key: "adjusted_p_value", title: "adjusted p, help", kind: "probability" },
      { key: "memorization", title: "memorization", kind: "score" },
      { key: "test_accuracy", title: "test right", kind: "share" },
    ],
  };
  const FILTERS = {
    examples: [
      { name: "index", title: "index", column: "index", test: "equal" },
      { name: "class", title: "class", column: "label", test: "class" },
      { name: "memorization", title: "memorization at least", column: "memorization", test: "least" },
      { name: "heldout", title: "runs out at least", column: "num_heldout", test: "least" },
    ],
    pairs: [
      { name: "train", title: "train index", column: "train_index", test: "equal" },
      { name: "test", title: "test index", column: "test_index", test: "equal" },
      { name: "class", title: "class of the test example", column: "test_label", test: "class" },
      { name: "effect", title: "effect", column: "value", test: "sign" },
      { name: "p", title: "adjusted p at most", column: "adjusted_p_value", test: "most" },
    ],
  };
  const START = { examples: { sort: "-memorization" }, pairs: { sort: "" } };

  // Splits of which at least one image is embedded: their cells keep room for one.
  const pictured = new Set(Object.keys(data.images).map((key) => key.split("-")[0]));

  // ---- parts of the page -------------------------------------------------------------------------------------------
  function make(tag, name, parts) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...(parts || []));
    return element;
  }
  function link(address, name, parts) {
    const element = make("a", name, parts);
    element.href = address;
    return element;
  }

  // ---- cells -----------------------------------------------------------------------------------------------------
  function decimals(value) {
    const short = Math.abs(value).toFixed(3);
    const text = value !== 0 && Number(short) === 0 ? Math.abs(value).toFixed(4) : short;
    return (value < 0 && Number(text) !== 0 ? "\u2212" : "") + text;
  }
  function isText(column) { return column.kind === "label" || column.kind === "example"; }
  function signed(value) { return (value > 0 ? "+" : "") + decimals(value); }
  function className(label, isAlone) {
    const name = data.classNames[label] === undefined ? String(label) : data.classNames[label];
    return isAlone && /^\d+$/.test(name) ? "class " + name : name;
  }
  function missing(table, column, row) {
    const columns = data.tables[table];
    if (column.key === "clean_label") return "";
    if (column.key === "adjusted_p_value") return "\u2013";
    if (columns.num_in && columns.num_in[row] === 0 && column.key !== "consistency") return "never trained on";
    return "no held-out run";
  }
  function cell(table, column, row) {
    const value = data.tables[table][column.key][row];
    const element = document.createElement("td");
    if (isText(column)) element.className = "text";
    if (value === null) {
      element.textContent = missing(table, column, row);
      element.className = "none";
    } else if (column.kind === "example") {
      const name = column.split + "-" + value;
      const parts = [String(value)];
      if (pictured.has(column.split)) parts.unshift(make("span", "image tiny " + (data.images[name] || "absent")));
      element.append(...(data.panels[name] ? [link("#" + name, "", parts)] : parts));
    } else if (column.kind === "label") {
      element.textContent = className(value);
    } else if (column.kind === "whole") {
      element.textContent = String(value);
    } else if (column.kind === "probability") {
      element.textContent = value === 0 || value >= 0.001 ? decimals(value) : value.toExponential(0).replace("-", "\u2212");
    } else if (column.kind === "score") {
      element.textContent = signed(value);
      if (table === "pairs" && column.key === "value") element.className = value < 0 ? "minus" : "plus";
    } else {
      element.textContent = decimals(value);
    }
    return element;
  }

  // ---- one table -------------------------------------------------------------------------------------------------
  // All rows in the order of a column, kept: a filter goes over them and need not sort again.
  function orderOf(table, total) {
    const kept = new Map();
    return function (sort) {
      if (!kept.has(sort)) kept.set(sort, sortedRows(table, total, sort));
      return kept.get(sort);
    };
  }
  function sortedRows(table, total, sort) {
    const falling = sort[0] === "-", column = sort ? data.tables[table][falling ? sort.slice(1) : sort] : undefined;
    const rows = new Uint32Array(total).map((_, row) => row);
    if (!column) return rows;
    // Missing values last in either direction; of equal ones the row that was first.
    const keys = Float64Array.from(column, (value) => value === null ? Infinity : falling ? -value : value);
    return rows.sort((a, b) => keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b);
  }
  function test(filter, wanted) {
    const number = Number(wanted);
    if (filter.test === "sign") return wanted === "helps" ? (value) => value > 0 : (value) => value < 0;
    if (filter.test === "least") return (value) => value !== null && value >= number;
    if (filter.test === "most") return (value) => value !== null && value <= number;
    return (value) => value === number;
  }
  function makeTable(name) {
    const columns = COLUMNS[name].filter((column) => data.tables[name][column.key]);
    const filters = FILTERS[name].filter((filter) => data.tables[name][filter.column]);
    const block = document.getElementById(name);
    const head = block.querySelector("thead"), body = block.querySelector("tbody");
    const form = block.querySelector("form"), pager = block.querySelector(".pager");
    const total = data.tables[name][columns[0].key].length;
    const state = Object.assign({ page: "1" }, START[name]);
    const headers = new Map(), inputs = new Map();

    const order = orderOf(name, total);
    function matching() {
      let rows = order(state.sort);
      for (const filter of filters) {
        const wanted = state[filter.name] || "";
        if (wanted === "") continue;
        const passes = test(filter, wanted), column = data.tables[name][filter.column];
        rows = rows.filter((row) => passes(column[row]));
      }
      return rows;
    }
    function draw() {
      const rows = matching();
      const pages = Math.max(1, Math.ceil(rows.length / data.rowsPerPage));
      const page = Math.min(Math.max(1, parseInt(state.page, 10) || 1), pages);
      state.page = String(page);
      const first = (page - 1) * data.rowsPerPage;
      const visible = rows.slice(first, first + data.rowsPerPage);
      body.replaceChildren(...Array.from(visible, (row) => make("tr", "", columns.map((column) => cell(name, column, row)))));
      if (!visible.length) {
        const line = document.createElement("tr"), only = document.createElement("td");
        only.colSpan = columns.length;
        only.className = "empty";
        only.textContent = total ? "No row passes the filters." : "There are no such rows.";
        line.append(only);
        body.append(line);
      }
      headers.forEach(function (header, key) {
        if (state.sort === key) header.setAttribute("aria-sort", "ascending");
        else if (state.sort === "-" + key) header.setAttribute("aria-sort", "descending");
        else header.removeAttribute("aria-sort");
      });
      inputs.forEach((input, key) => { if (input.value !== (state[key] || "")) input.value = state[key] || ""; });
      drawPager(rows.length, page, pages, first, visible.length);
    }
    function drawPager(count, page, pages, first, shown) {
      const back = button("\u2190 back", page > 1, () => turn(page - 1));
      const next = button("next \u2192", page < pages, () => turn(page + 1));
      const text = document.createElement("span");
      const span = shown ? (first + 1) + "\u2013" + (first + shown) + " of " : "";
      text.textContent = span + count + (count === total ? " rows" : " rows, filtered from " + total);
      pager.replaceChildren(back, text, next);
    }
    function button(text, enabled, action) {
      const element = document.createElement("button");
      element.type = "button";
      element.textContent = text;
      element.disabled = !enabled;
      element.addEventListener("click", action);
      return element;
    }
    function turn(page) { state.page = String(page); changed(); }
    function changed() { draw(); remember(name, state); }
    function sortBy(column) {
      const rising = column.kind === "example" || column.kind === "label";
      const first = (rising ? "" : "-") + column.key, second = (rising ? "-" : "") + column.key;
      state.sort = state.sort === first ? second : first;
      state.page = "1";
      changed();
    }

    const line = document.createElement("tr");
    for (const column of columns) {
      const header = document.createElement("th");
      header.scope = "col";
      if (isText(column)) header.className = "text";
      header.append(button(column.title, true, () => sortBy(column)));
      headers.set(column.key, header);
      line.append(header);
    }
    head.append(line);
    for (const filter of filters) {
      const label = document.createElement("label");
      const input = filterInput(name, filter);
      input.name = filter.name;
      input.addEventListener("input", function () { state[filter.name] = input.value; state.page = "1"; changed(); });
      label.append(filter.title + " ", input);
      inputs.set(filter.name, input);
      form.append(label);
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    return {
      apply(wanted) {
        for (const filter of filters) delete state[filter.name];
        Object.assign(state, { page: "1" }, START[name], wanted);
        draw();
      },
      draw: draw,
    };
  }
  function filterInput(name, filter) {
    if (filter.test !== "class" && filter.test !== "sign") {
      const input = document.createElement("input");
      input.type = "number";
      input.step = filter.test === "equal" ? "1" : "any";
      return input;
    }
    const select = document.createElement("select");
    const choices = filter.test === "sign"
      ? [["helps", "helps"], ["harms", "harms"]]
      : Array.from(new Set(data.tables[name][filter.column])).sort((a, b) => a - b).map((label) => [String(label), className(label)]);
    for (const [value, text] of [["", "all"], ...choices]) select.append(new Option(text, value));
    return select;
  }

  // ---- the address keeps the view: #examples?sort=-memorization&class=3&page=2 -------------------------------------
  function remember(name, state) {
    const kept = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) if (value !== "" && !(key === "page" && value === "1")) kept.set(key, value);
    const address = "#" + name + "?" + kept.toString();
    try { history.replaceState(null, "", address); } catch (error) { /* some browsers refuse this for local files */ }
    below = address;
  }
  function follow() {
    const name = location.hash.slice(1);
    if (Object.hasOwn(data.panels, name)) return openPanel(name);
    const back = panel.open && location.hash === below;
    panel.close();
    below = location.hash;
    if (!back) show(name);  // after a step back the page lies where it lay
  }
  function show(name) {
    const example = /^(train|test)-(\d+)$/.exec(name);  // without a panel: its rows
    if (example) name = example[1] === "train" ? "examples?index=" + example[2] : "pairs?test=" + example[2];
    const [view, query] = name.split("?");
    if (query === undefined || !Object.hasOwn(views, view)) return;
    views[view].apply(Object.fromEntries(new URLSearchParams(query)));
    document.getElementById(view).scrollIntoView({ behavior: "instant" });
  }

  // ---- panels of examples, one above the page: #train-7 ------------------------------------------------------------
  const panel = document.getElementById("panel");
  let below = "";  // the address without a panel
  // A page that is opened at a panel gets a step below it, so that a step back closes the panel and does not leave.
  function stepBelow() {
    const first = location.hash;
    if (!Object.hasOwn(data.panels, first.slice(1)) || history.state === "below") return;
    try { history.replaceState("below", "", location.href.split("#")[0]); history.pushState("below", "", first); } catch (error) { /* as above */ }
  }
  function openPanel(name) {
    document.getElementById("panel-content").replaceChildren(...panelOf(name));
    if (!panel.open) panel.showModal();
    panel.scrollTop = 0;
    document.getElementById("panel-title").focus();
  }
  function closePanel() {
    panel.close();
    if (!Object.hasOwn(data.panels, location.hash.slice(1))) return;
    try { history.pushState(null, "", below || location.href.split("#")[0]); } catch (error) { location.hash = below; }
  }
  function panelOf(name) {
    const found = data.panels[name], [split, index] = name.split("-"), isTrain = split === "train";
    const title = make("h2", "", [(isTrain ? "Training example " : "Test example ") + index]);
    title.id = "panel-title";
    title.tabIndex = -1;
    const facts = [];
    if (found.label !== null) facts.push(make("p", "", [className(found.label, true)]));
    if (isTrain) {
      const score = found.memorization === null ? "no memorization" : "memorization " + signed(found.memorization) + " \u00b1 " + decimals(found.standard_error);
      facts.push(make("p", "", [score + (found.consistency === null ? "" : ", consistency " + decimals(found.consistency))]));
      facts.push(make("p", "quiet", [found.num_in + " runs trained on it, " + found.num_heldout + " held it out"]));
    } else {
      facts.push(make("p", "", ["right in " + (100 * found.accuracy).toFixed(0) + "\u202f% of runs"]));
    }
    facts.push(make("p", "quiet", [link((isTrain ? "#examples?index=" : "#pairs?test=") + index, "", [isTrain ? "in the table" : "its strong pairs in the table"])]));
    const image = data.images[name] ? [make("span", "image large " + data.images[name])] : [];
    const sides = [["helps", isTrain ? "helps these test examples" : "these training examples help it"], ["harms", isTrain ? "harms these test examples" : "these training examples harm it"]];
    return [
      make("div", "example", image.concat([make("div", "", [title].concat(facts))])),
      make("div", "sides", sides.map(function ([side, text]) {
        const rows = found[side].map((effect) => make("li", "", [hop(isTrain ? "test" : "train", effect)]));
        return make("div", side, [make("h3", "", [text]), rows.length ? make("ul", "", rows) : make("p", "quiet", ["none"])]);
      })),
    ];
  }
  function hop(split, [index, label, value, error]) {
    const name = split + "-" + index, isInside = Object.hasOwn(data.panels, name);
    const image = pictured.has(split) ? [make("span", "image small " + (data.images[name] || "absent"))] : [];
    const who = make("span", "who", [make("b", "", [String(index)])]);
    if (label !== null) who.append(make("span", "quiet", [className(label, true)]));
    const bar = make("span", "bar");
    bar.style.width = Math.min(100, 100 * Math.abs(value) / data.largestEffect).toFixed(1) + "%";
    const amount = make("span", "amount", [make("span", "value", [signed(value) + " ", make("small", "", ["\u00b1 " + decimals(error)])]), bar]);
    const row = link("#" + name, isInside ? "hop" : "hop out", image.concat([who, amount]));
    row.title = isInside ? "open its panel" : "it has no panel: find it in the table";
    return row;
  }
  document.getElementById("panel-back").addEventListener("click", () => history.back());
  document.getElementById("panel-close").addEventListener("click", closePanel);
  panel.addEventListener("cancel", (event) => { event.preventDefault(); closePanel(); });
  panel.addEventListener("click", (event) => { if (event.target === panel) closePanel(); });

  // ---- galleries and navigation ------------------------------------------------------------------------------------
  function showPanel(number) {
    document.querySelectorAll(".panel").forEach((panel) => panel.classList.toggle("shown", panel.dataset.panel === number));
    document.querySelectorAll("[data-panel-of]").forEach((choice) => choice.setAttribute("aria-pressed", String(choice.dataset.panelOf === number)));
  }
  document.querySelectorAll("[data-panel-of]").forEach((choice) => choice.addEventListener("click", () => showPanel(choice.dataset.panelOf)));
  document.querySelectorAll("select[data-choice]").forEach((select) => select.addEventListener("change", () => showPanel(select.value)));
  showPanel("0");

  function markSection() {
    let current = "";
    document.querySelectorAll("main > section, footer").forEach(function (section) {
      if (section.getBoundingClientRect().top < window.innerHeight * 0.35) current = section.id;
    });
    if (window.innerHeight + window.scrollY >= root.scrollHeight - 4 && window.scrollY > 0) current = "provenance";
    document.querySelectorAll("nav a:not(.home)").forEach((link) => link.classList.toggle("here", link.hash === "#" + current));
  }
  window.addEventListener("scroll", markSection, { passive: true });

  const views = { examples: makeTable("examples"), pairs: makeTable("pairs") };
  views.examples.draw();
  views.pairs.draw();
  window.addEventListener("hashchange", follow);
  stepBelow();
  follow();
  markSection();
})();
