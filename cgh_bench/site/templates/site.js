"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const ROWS_AT_FIRST = 200;

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function say(text) { document.querySelector(".status").textContent = text; }

// The reader's choices are part of the address: they survive a reload and can be linked to.
function restore(controls) {
  const chosen = new URLSearchParams(location.search);
  for (const [id, control] of Object.entries(controls)) {
    const value = chosen.get(id);
    if (value !== null && (control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value))) control.value = value;
  }
  return chosen;
}

function remember(controls, others = {}) {
  const values = Object.entries(controls).map(([id, control]) => [id, control.value]);
  const chosen = [...values, ...Object.entries(others)].filter(([, value]) => value);
  history.replaceState(null, "", `?${new URLSearchParams(chosen)}${location.hash}`);
}

// Published numbers as their sources print them, measured ones with the decimal that tables have.
function number(value, measured) { return measured ? value.toFixed(1) : value.toFixed(3).replace(/0{1,2}$/, ""); }

// The leaderboard: one protocol at a time, filtered and sorted.
function leaderboard() {
  const controls = Object.fromEntries(["board", "method", "kind", "cost", "epochs"].map((id) => [id, document.getElementById(id)]));
  const more = document.querySelector(".more");
  let all = false;
  for (const [label, measured] of [["Measured", true], ["Published only", false]]) {
    const group = element("optgroup", "", { label });
    for (const board of data.boards.filter((each) => each.measured === measured)) {
      group.append(element("option", `${board.title} (${board.rows.length})`, { value: board.id }));
    }
    if (group.children.length) controls.board.append(group);
  }
  const chosen = restore(controls);
  const sorting = { key: chosen.get("sort") ?? "", up: chosen.get("order") === "up" };

  const current = () => data.boards.find((board) => board.id === controls.board.value);

  function keys(board) {
    return [
      { key: "name", label: "Backbone", of: (row) => `${row.name} ${row.detail}`.toLowerCase(), up: true },
      { key: "epochs", label: "Epochs", of: (row) => row.epochs, up: true },
      { key: "views", label: "Views per epoch", of: (row) => row.views || null, up: true },
      ...board.metrics.map((metric) => ({
        key: `metric ${metric.name}`, label: metric.label, numeric: true, up: metric.higher === false,
        of: (row) => row.values[metric.name]?.[0] ?? null, name: metric.name,
      })),
    ].filter((column) => board.rows.some((row) => column.of(row) !== null));
  }

  function filtered(board) {
    const words = controls.method.value.toLowerCase().split(/\s+/).filter(Boolean);
    const most = Number(controls.epochs.value) || Infinity;
    return board.rows.filter((row) =>
      (!controls.kind.value || row.kind === controls.kind.value)
      && (!controls.cost.value || row.cost === controls.cost.value)
      && (most === Infinity || (row.epochs !== null && row.epochs <= most))
      && words.every((word) => `${row.name} ${row.detail}`.toLowerCase().includes(word)));
  }

  function sorted(rows, column) {
    const sign = sorting.up ? 1 : -1;
    return rows.map((row) => [column.of(row), row]).sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);  // missing values come last either way
      return sign * (a < b ? -1 : a > b ? 1 : 0);
    }).map(([, row]) => row);
  }

  function head(columns) {
    const line = element("tr");
    for (const column of columns) {
      const cell = element("th", "", { scope: "col", class: column.numeric ? "number" : "" });
      const active = column.key === sorting.key;
      cell.setAttribute("aria-sort", active ? (sorting.up ? "ascending" : "descending") : "none");
      const button = element("button", column.label + (active ? (sorting.up ? " ▲" : " ▼") : ""), { type: "button" });
      button.addEventListener("click", () => {
        sorting.up = active ? !sorting.up : column.up;
        sorting.key = column.key;
        show();
        document.querySelector(`[aria-sort]:nth-child(${columns.indexOf(column) + 1}) button`).focus();
      });
      cell.append(button);
      line.append(cell);
    }
    line.append(element("th", "Source", { scope: "col" }));
    return line;
  }

  function body(row, columns) {
    const line = element("tr", "", { class: row.kind });
    const name = element("th", "", { scope: "row" });
    name.append(row.href ? element("a", row.name, { href: row.href }) : row.name);
    if (row.detail) name.append(" ", element("span", row.detail, { class: "detail" }));
    if (row.note) name.append(" ", element("span", row.note, { class: "warning" }));
    line.append(name);
    for (const column of columns.slice(1)) {
      if (!column.numeric) {
        line.append(element("td", row[column.key] ?? "", { class: "numbers" }));
        continue;
      }
      const cell = element("td", "", { class: "number" });
      const value = row.values[column.name];
      if (value) {
        cell.append(number(value[0], row.kind === "measured"));
        if (value[1] !== null) cell.append(" ", element("span", `± ${value[1].toFixed(1)} (${value[2]})`, { class: "spread" }));
      }
      line.append(cell);
    }
    const source = element("td", row.source ? "" : "measured", { class: "source" });
    if (row.source) {
      const [url, ...rest] = row.source.split(" ");
      const place = url.split("/").slice(2, 5).join("/").replace(/^github\.com\//, "");
      source.append(/^https:/.test(url) ? element("a", place, { href: url, rel: "noopener" }) : url, " ", rest.join(" "));
    }
    line.append(source);
    return line;
  }

  function show() {
    const board = current();
    if (!board) return say("No protocol.");
    const columns = keys(board);
    let column = columns.find((each) => each.key === sorting.key);
    if (!column) {
      column = columns.find((each) => each.numeric);
      Object.assign(sorting, { key: column.key, up: column.up });
    }
    remember(controls, { sort: sorting.key, order: sorting.up ? "up" : "" });
    const rows = sorted(filtered(board), column);
    const shown = all ? rows : rows.slice(0, ROWS_AT_FIRST);
    document.querySelector(".board thead").replaceChildren(head(columns));
    document.querySelector(".board tbody").replaceChildren(...shown.map((row) => body(row, columns)));
    more.hidden = shown.length === rows.length;
    const link = element("a", "Protocol and sources", { href: board.href });
    document.querySelector(".status").replaceChildren(`${rows.length} of ${board.rows.length} rows. `, link);
  }

  for (const control of Object.values(controls)) {
    control.addEventListener(control.tagName === "SELECT" ? "change" : "input", () => {
      all = false;
      if (control === controls.board) sorting.key = "";
      show();
    });
  }
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { all = true; show(); });
  show();
}

// Two backbones side by side; every interval was computed when the page was made.
function comparison() {
  const controls = Object.fromEntries(["first", "second"].map((id) => [id, document.getElementById(id)]));
  for (const select of Object.values(controls)) {
    data.subjects.forEach((label) => select.append(element("option", label)));
  }
  if (data.subjects.length > 1) controls.second.selectedIndex = controls.first.selectedIndex + 1;
  const chosen = restore(controls);
  if (!chosen.has("second") && controls.second.value === controls.first.value) controls.second.selectedIndex = 0;

  const range = (low, high) => `${low.toFixed(2)} to ${high.toFixed(2)}`;

  function verdict(each, a, b, names) {
    const [first, second] = [each.replicates[a], each.replicates[b]];
    if (!first || !second) return ["", "", "n = 1: no significance test"];
    if (first !== second) return ["", "", `Not comparable: one spread is over ${first}s, the other over ${second}s`];
    const difference = each.means[a] - each.means[b];
    const half = each.pairs[Math.max(a, b)][Math.min(a, b)] / 1000;
    const shown = [difference.toFixed(2), range(difference - half, difference + half)];
    if (Math.abs(difference) <= half) return [...shown, "No significant difference"];
    if (each.higher === null) return [...shown, "Different; neither is better"];
    return [...shown, `${names[(difference > 0) === each.higher ? 0 : 1]} is better`];
  }

  // What other images might have changed.
  function overImages(each, a, b) {
    const pair = each.images.find(({ first, second }) => first === Math.min(a, b) && second === Math.max(a, b));
    if (!pair) return "";
    const [low, high] = a < b ? [pair.low, pair.high] : [-pair.high, -pair.low];
    return `over ${pair.images.toLocaleString("en")} images: ${range(low, high)}`;
  }

  function row(each, a, b, names) {
    const line = element("tr");
    line.append(element("th", each.board, { scope: "row" }), element("td", each.metric));
    for (const place of [a, b]) line.append(element("td", each.texts[place], { class: "numbers" }));
    for (const part of verdict(each, a, b, names)) line.append(element("td", part));
    const images = overImages(each, a, b);
    if (images) line.cells[5].append(element("span", images, { class: "images" }));
    return line;
  }

  function show() {
    const selected = [controls.first.selectedIndex, controls.second.selectedIndex];
    const names = selected.map((index) => data.subjects[index]);
    if (!data.subjects.length) return say("No results yet.");
    remember(controls);
    const head = element("tr");
    for (const label of ["Protocol", "Metric", ...names, "Difference", "95 % interval", "Verdict"]) {
      head.append(element("th", label, { scope: "col" }));
    }
    const rows = [];
    for (const each of data.metrics) {
      const [a, b] = selected.map((index) => each.subjects.indexOf(index));
      if (a >= 0 && b >= 0 && a !== b) rows.push(row(each, a, b, names));
    }
    document.querySelector(".board thead").replaceChildren(head);
    document.querySelector(".board tbody").replaceChildren(...rows);
    say(names[0] === names[1] ? "Choose two different backbones." : `${rows.length} shared metric${rows.length === 1 ? "" : "s"}.`);
  }

  for (const select of Object.values(controls)) select.addEventListener("change", show);
  show();
}

if (document.getElementById("leaderboard")) leaderboard(); else comparison();
