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

// Published figures as their sources print them, measured ones with the decimal that tables have.
function number(value, measured) { return measured ? value.toFixed(1) : value.toFixed(2).replace(/0$/, ""); }

// The leaderboard: one protocol at a time, filtered and sorted.
function leaderboard() {
  const controls = Object.fromEntries(["board", "method", "kind", "cost", "epochs"].map((id) => [id, document.getElementById(id)]));
  const more = document.querySelector(".more");
  const sorting = { key: "", up: false };
  let all = false;
  for (const [label, measured] of [["Measured here", true], ["Published only", false]]) {
    const group = element("optgroup", "", { label });
    for (const board of data.boards.filter((each) => each.measured === measured)) {
      group.append(element("option", `${board.title} (${board.rows.length})`, { value: board.id }));
    }
    if (group.children.length) controls.board.append(group);
  }

  const current = () => data.boards.find((board) => board.id === controls.board.value);

  function keys(board) {
    return [
      { key: "name", label: "Backbone", of: (row) => `${row.name} ${row.detail}`.toLowerCase(), up: true },
      { key: "epochs", label: "Epochs", of: (row) => row.epochs, up: true },
      { key: "cost", label: "Cost", of: (row) => row.cost || null, up: true },
      ...board.metrics.map((metric) => ({
        key: `metric ${metric.name}`, label: metric.name + (metric.higher ? "" : " ↓"), numeric: true, up: !metric.higher,
        of: (row) => row.values[metric.name]?.[0] ?? null, name: metric.name,
      })),
    ].filter((column) => board.rows.some((row) => column.of(row) !== null));
  }

  function chosen(board) {
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
      if (a === null || b === null) return (a === null) - (b === null);  // what is missing comes last either way
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
    line.append(element("th", "From", { scope: "col" }));
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
        line.append(element("td", row[column.key] ?? ""));
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
    const from = element("td", row.source ? "" : "measured here", { class: "source" });
    if (row.source) {
      const [url, ...rest] = row.source.split(" ");
      const place = url.split("/").slice(2, 5).join("/").replace(/^github\.com\//, "");
      from.append(/^https:/.test(url) ? element("a", place, { href: url, rel: "noopener" }) : url, " ", rest.join(" "));
    }
    line.append(from);
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
    const rows = sorted(chosen(board), column);
    const shown = all ? rows : rows.slice(0, ROWS_AT_FIRST);
    document.querySelector(".board thead").replaceChildren(head(columns));
    document.querySelector(".board tbody").replaceChildren(...shown.map((row) => body(row, columns)));
    more.hidden = shown.length === rows.length;
    const link = element("a", "definition and all figures", { href: board.href });
    document.querySelector(".status").replaceChildren(`${rows.length} of ${board.rows.length} rows. `, link);
  }

  function fromHash() {
    const wanted = decodeURIComponent(location.hash.slice(1));
    if (!data.boards.some((board) => board.id === wanted)) return;
    controls.board.value = wanted;
    document.getElementById("leaderboard").scrollIntoView();
    show();
  }

  for (const control of Object.values(controls)) {
    control.addEventListener(control.tagName === "SELECT" ? "change" : "input", () => {
      all = false;
      if (control === controls.board) {
        sorting.key = "";
        history.replaceState(null, "", `#${encodeURIComponent(control.value)}`);
      }
      show();
    });
  }
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { all = true; show(); });
  addEventListener("hashchange", fromHash);
  show();
  fromHash();
}

// Welch's interval of mean(a) - mean(b); Student's quantile is interpolated over 1 / degrees of freedom, as in tables.
function welch(a, b) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const part = (values) => values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1) / values.length;
  const difference = mean(a) - mean(b);
  const [first, second] = [part(a), part(b)];
  if (first + second === 0) return [difference, difference, difference];
  const freedom = (first + second) ** 2 / (first ** 2 / (a.length - 1) + second ** 2 / (b.length - 1));
  const place = Math.min(1, 1 / freedom) * (data.student.length - 1);
  const below = Math.min(Math.floor(place), data.student.length - 2);
  const quantile = data.student[below] + (place - below) * (data.student[below + 1] - data.student[below]);
  const half = quantile * Math.sqrt(first + second);
  return [difference, difference - half, difference + half];
}

function comparison() {
  const selects = ["first", "second"].map((id) => document.getElementById(id));
  for (const select of selects) {
    for (const subject of data.subjects) select.append(element("option", subject.label));
  }
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (data.subjects.some((subject) => subject.label === wanted)) selects[0].value = wanted;
  const other = data.subjects.find((subject) => subject.label !== selects[0].value);
  if (other) selects[1].value = other.label;

  function text(values) {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    if (values.length < 2) return mean.toFixed(2);
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
    return `${mean.toFixed(2)} ± ${deviation.toFixed(2)} (${values.length})`;
  }

  function verdict(a, b, higher, names) {
    if (a.values.length < 2 || b.values.length < 2) return ["", "", "single runs: no verdict"];
    if (a.replicate !== b.replicate) return ["", "", "spreads over different things: not comparable"];
    const [difference, low, high] = welch(a.values, b.values);
    const interval = `${low.toFixed(2)} to ${high.toFixed(2)}`;
    if (low <= 0 && high >= 0) return [difference.toFixed(2), interval, "not separated"];
    return [difference.toFixed(2), interval, `${names[(difference > 0) === higher ? 0 : 1]} is better`];
  }

  // Of the same images: what other images might have changed.
  function paired(cell, names) {
    const same = (pair, [a, b]) => pair.board === cell.board && pair.metric === cell.metric && pair.first === a && pair.second === b;
    const pair = data.paired.find((each) => same(each, names) || same(each, [...names].reverse()));
    if (!pair) return "";
    const [, least, most] = pair.interval;
    const [low, high] = pair.first === names[0] ? [least, most] : [-most, -least];
    return `over ${pair.images.toLocaleString("en")} images: ${low.toFixed(2)} to ${high.toFixed(2)}`;
  }

  function show() {
    const [first, second] = selects.map((select) => data.subjects.find((subject) => subject.label === select.value));
    if (!first) return say("Nothing is measured yet.");
    const line = element("tr");
    for (const label of ["Protocol", "Metric", first.label, second.label, "Difference", "95 % interval", "Verdict"]) {
      line.append(element("th", label, { scope: "col" }));
    }
    document.querySelector(".board thead").replaceChildren(line);
    const rows = [];
    for (const a of first.cells) {
      const b = second.cells.find((cell) => cell.board === a.board && cell.metric === a.metric);
      if (!b) continue;
      const board = data.boards[a.board];
      const row = element("tr");
      row.append(element("th", board.title, { scope: "row" }), element("td", a.metric), element("td", text(a.values), { class: "figures" }), element("td", text(b.values), { class: "figures" }));
      for (const part of verdict(a, b, board.metrics[a.metric], [first.label, second.label])) row.append(element("td", part));
      const images = paired(a, [first.label, second.label]);
      if (images) row.cells[5].append(element("span", images, { class: "images" }));
      rows.push(row);
    }
    document.querySelector(".board tbody").replaceChildren(...rows);
    say(first === second ? "Choose two different backbones." : `${rows.length} figures that both have.`);
  }

  for (const select of selects) select.addEventListener("change", show);
  show();
}

if (document.getElementById("leaderboard")) leaderboard(); else comparison();
