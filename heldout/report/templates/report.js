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
      { key: "adjusted_p_value", title: "adjusted p", kind: "probability" },
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
  const pictured = new Set(Object.keys(data.images).map((key) => key.split(":")[0]));

  // ---- cells -----------------------------------------------------------------------------------------------------
  function decimals(value) {
    const short = Math.abs(value).toFixed(3);
    const text = value !== 0 && Number(short) === 0 ? Math.abs(value).toFixed(4) : short;
    return (value < 0 && Number(text) !== 0 ? "\u2212" : "") + text;
  }
  function isText(column) { return column.kind === "label" || column.kind === "example"; }
  function className(label) {
    const name = data.classNames[label];
    return name === undefined ? String(label) : name;
  }
  function missing(table, column, row) {
    const columns = data.tables[table];
    if (column.key === "clean_label") return "";
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
      if (pictured.has(column.split)) {
        const picture = document.createElement("span");
        picture.className = "image tiny " + (data.images[column.split + ":" + value] || "absent");
        element.append(picture);
      }
      element.append(String(value));
    } else if (column.kind === "label") {
      element.textContent = className(value);
    } else if (column.kind === "whole") {
      element.textContent = String(value);
    } else if (column.kind === "probability") {
      element.textContent = value === 0 || value >= 0.001 ? decimals(value) : value.toExponential(0).replace("-", "\u2212");
    } else if (column.kind === "score") {
      element.textContent = (value > 0 ? "+" : "") + decimals(value);
      if (table === "pairs" && column.key === "value") element.className = value < 0 ? "minus" : "plus";
    } else {
      element.textContent = decimals(value);
    }
    return element;
  }

  // ---- one table -------------------------------------------------------------------------------------------------
  function sortedRows(table, rows, sort) {
    if (!sort) return rows;
    const falling = sort[0] === "-";
    const column = data.tables[table][falling ? sort.slice(1) : sort];
    if (!column) return rows;
    const sign = falling ? -1 : 1;
    return rows.sort(function (a, b) {
      const x = column[a], y = column[b];
      if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
      return x === y ? a - b : x < y ? -sign : sign;
    });
  }
  function passes(filter, wanted, value) {
    if (filter.test === "sign") return wanted === "helps" ? value > 0 : value < 0;
    if (filter.test === "least") return value !== null && value >= Number(wanted);
    if (filter.test === "most") return value !== null && value <= Number(wanted);
    return value === Number(wanted);
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

    function matching() {
      const active = filters.filter((filter) => (state[filter.name] || "") !== "");
      const rows = [];
      for (let row = 0; row < total; row++) {
        if (active.every((filter) => passes(filter, state[filter.name], data.tables[name][filter.column][row]))) rows.push(row);
      }
      return rows;
    }
    function draw() {
      const rows = sortedRows(name, matching(), state.sort);
      const pages = Math.max(1, Math.ceil(rows.length / data.rowsPerPage));
      const page = Math.min(Math.max(1, parseInt(state.page, 10) || 1), pages);
      state.page = String(page);
      const first = (page - 1) * data.rowsPerPage;
      const visible = rows.slice(first, first + data.rowsPerPage);
      body.replaceChildren(...visible.map(function (row) {
        const line = document.createElement("tr");
        line.append(...columns.map((column) => cell(name, column, row)));
        return line;
      }));
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
  }
  function follow() {
    const [name, query] = location.hash.slice(1).split("?");
    if (query === undefined || !Object.hasOwn(views, name)) return;
    views[name].apply(Object.fromEntries(new URLSearchParams(query)));
    document.getElementById(name).scrollIntoView({ behavior: "auto" });
  }

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
  follow();
  markSection();
})();
