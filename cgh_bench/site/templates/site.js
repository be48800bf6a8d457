"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const ROWS_AT_FIRST = 200;
const PICTURES = 12;

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

function drawing(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// Where a value lies between the least and the greatest of all, from 0 to 1.
function scale(values) {
  const least = Math.min(...values), span = Math.max(...values) - least || 1;
  return (value) => (value - least) / span;
}

// Three to six round values from the least to the greatest, with the decimals that tell them apart.
function ticks(values) {
  const least = Math.min(...values), span = Math.max(...values) - least || 1;
  const power = 10 ** Math.floor(Math.log10(span / 3));
  const step = [5, 2, 1].map((factor) => factor * power).find((size) => span / size >= 3);
  const first = Math.ceil(least / step), decimals = Math.max(0, -Math.floor(Math.log10(step)));
  return Array.from({ length: Math.floor((least + span) / step) - first + 1 }, (_, place) => [(first + place) * step, decimals]);
}

// A line for the interval and a dot for the value, on the scale of the column.
function intervalBar(value, place) {
  const [low, high, over] = value[3];
  const said = `${low.toFixed(1)} to ${high.toFixed(1)}, over ${over}`;
  const bar = drawing("svg", { class: "interval", viewBox: "0 0 160 12", role: "img", "aria-label": said });
  const x = (at) => 4 + 152 * place(at);
  bar.append(
    drawing("title", {}, said),
    drawing("line", { x1: x(low), x2: x(high), y1: 6, y2: 6 }), drawing("circle", { cx: x(value[0]), cy: 6, r: 3.5 }),
  );
  return bar;
}

const VIEWS = { asymmetric: 1, symmetric: 2 };
const COSTS = {
  parameters: ["Parameters (millions)", (row) => row.parameters && row.parameters / 1e6],
  flops: ["GFLOPs per image", (row) => row.flops && row.flops / 1e9],
  speed: ["Milliseconds per image", (row) => row.speed],
  views: ["Epochs × views per epoch", (row) => row.epochs && VIEWS[row.cost] && row.epochs * VIEWS[row.cost]],
  minutes: ["Minutes of pretraining", (row) => row.minutes],
};

function costText(cost) { return cost < 10 ? cost.toFixed(1) : cost.toFixed(0); }

// Accuracy against cost; the line joins the rows that no other beats at the same or a lower cost.
function costPlot(rows, column, cost) {
  // Speeds compare on one device only: that of most rows.
  const devices = rows.filter((row) => cost === "speed" && row.speed).map((row) => row.device);
  const device = devices.sort((a, b) => devices.filter((each) => each === b).length - devices.filter((each) => each === a).length)[0];
  if (device) rows = rows.filter((row) => row.device === device);
  const points = rows.map((row) => ({ row, x: COSTS[cost][1](row), y: column.of(row) })).filter(({ x, y }) => x && y !== null);
  points.sort((a, b) => a.x - b.x || (column.up ? a.y - b.y : b.y - a.y));
  let best = null;
  const front = points.filter(({ y }) => {
    const better = best === null || (column.up ? y < best : y > best);
    if (better) best = y;
    return better;
  });
  const [across, along] = [scale(points.map(({ x }) => Math.log(x))), scale(points.map(({ y }) => y))];
  const at = ({ x, y }) => [60 + 470 * across(Math.log(x)), 250 - 220 * along(y)];
  const said = `${column.label} against ${COSTS[cost][0].toLowerCase()}: ${points.length} rows. Pareto front: ${front.map(({ row }) => row.name).join(", ")}.`;
  const plot = drawing("svg", { viewBox: "0 0 640 300", role: "img", "aria-label": said });
  for (const [y, decimals] of ticks(points.map((point) => point.y))) {
    const height = 250 - 220 * along(y);
    plot.append(drawing("text", { x: 48, y: height + 4, "text-anchor": "end" }, y.toFixed(decimals)), drawing("line", { class: "grid", x1: 56, x2: 632, y1: height, y2: height }));
  }
  for (const x of new Set([points[0].x, points.at(-1).x])) {
    plot.append(drawing("text", { x: 60 + 470 * across(Math.log(x)), y: 272, "text-anchor": "middle" }, costText(x)));
  }
  plot.append(drawing("text", { x: 295, y: 292, "text-anchor": "middle" }, COSTS[cost][0] + (device ? ` on ${device}` : "")));
  plot.append(drawing("polyline", { class: "front", points: front.map((point) => at(point).join(",")).join(" ") }));
  for (const point of points) {
    const [x, y] = at(point);
    const dot = drawing("circle", { class: `${point.row.kind} ${front.includes(point) ? "best" : ""}`, cx: x, cy: y, r: point.row.kind === "measured" ? 6 : 4 });
    dot.append(drawing("title", {}, `${point.row.name} ${point.row.detail}: ${number(point.y, point.row.kind === "measured")}`));
    plot.append(dot);
  }
  for (const point of front.filter(({ row }, place) => row.name !== front[place + 1]?.row.name).slice(-8)) {
    const [x, y] = at(point);
    plot.append(drawing("text", { class: "name", x: x + 9, y: y - 7 }, point.row.name));
  }
  return plot;
}

// The leaderboard: one protocol at a time, filtered and sorted.
function leaderboard() {
  const controls = Object.fromEntries(["board", "method", "kind", "cost", "epochs", "against"].map((id) => [id, document.getElementById(id)]));
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

  // The figure above the table, with the costs that tell the rows apart.
  function plot(rows, column) {
    const differs = (cost) => new Set(rows.filter((row) => column.numeric && column.of(row) !== null).map(COSTS[cost][1]).filter(Boolean).map(costText)).size > 1;
    const known = Object.keys(COSTS).filter((cost) => differs(cost) && (cost !== "speed" || differs("flops")));  // equal networks differ in speed by chance
    const wanted = controls.against.value || chosen.get("against");
    controls.against.replaceChildren(...known.map((cost) => element("option", COSTS[cost][0], { value: cost })));
    if (known.includes(wanted)) controls.against.value = wanted;
    const figure = document.querySelector(".front-figure");
    figure.hidden = !known.length;
    figure.querySelector(".drawn").replaceChildren(...(known.length ? [costPlot(rows, column, controls.against.value)] : []));
  }

  function head(columns, interval) {
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
    if (interval) line.append(element("th", "95 % interval", { scope: "col" }));
    line.append(element("th", "Source", { scope: "col" }));
    return line;
  }

  function body(row, columns, interval) {
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
    if (interval) {
      const cell = element("td");
      const value = row.values[interval.name];
      if (value?.[3]) cell.append(intervalBar(value, interval.place));
      line.append(cell);
    }
    const source = element("td", "", { class: "source" });
    source.append(/^https:/.test(row.source) ? element("a", row.place, { href: row.source, rel: "noopener" }) : row.place);
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
    const rows = sorted(filtered(board), column);
    plot(rows, column.numeric ? column : columns.find((each) => each.numeric));
    remember(controls, { sort: sorting.key, order: sorting.up ? "up" : "" });
    const shown = all ? rows : rows.slice(0, ROWS_AT_FIRST);
    const known = shown.map((row) => row.values[column.name]).filter((value) => value?.[3]);
    const interval = known.length ? { name: column.name, place: scale(known.flatMap((value) => [value[0], ...value[3].slice(0, 2)])) } : null;
    document.querySelector(".board thead").replaceChildren(head(columns, interval));
    document.querySelector(".board tbody").replaceChildren(...shown.map((row) => body(row, columns, interval)));
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

  function bytes(text) { return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)); }

  // Which images only one of the two has right, class by class, and pictures of some of them.
  function flips(each, places, names) {
    const target = new Uint16Array(bytes(each.target).buffer);
    const right = places.map((place) => bytes(each.right[place]));
    const only = [[], []];
    target.forEach((_, image) => {
      const [a, b] = right.map((bits) => bits[image >> 3] >> (image & 7) & 1);
      if (a !== b) only[a ? 0 : 1].push(image);
    });
    const section = element("section");
    section.append(element("h3", each.board));
    const counts = new Map();
    only.forEach((images, side) => images.forEach((image) => {
      const count = counts.get(target[image]) ?? [0, 0];
      count[side] += 1;
      counts.set(target[image], count);
    }));
    const most = [...counts].sort(([, a], [, b]) => b[0] + b[1] - a[0] - a[1]).slice(0, 8);
    const listed = most.map(([label, [a, b]]) => `${each.classes[label]} ${a} : ${b}`).join(", ");
    section.append(element("p", `${target.length.toLocaleString("en")} images. Only ${names[0]} correct: ${only[0].length.toLocaleString("en")}; only ${names[1]} correct: ${only[1].length.toLocaleString("en")}.${listed ? ` By class: ${listed}.` : ""}`, { class: "about" }));
    const pictures = data.pictures[each.order];
    const order = Object.keys(pictures).map(Number);
    only.forEach((images, side) => {
      const shown = images.filter((image) => image in pictures).slice(0, PICTURES);
      if (!shown.length) return;
      section.append(element("h4", `Only ${names[side]} correct`));
      const strip = element("ul", "", { class: "flips" });
      for (const image of shown) {
        const item = element("li");
        const given = each.classes[each.said[places[1 - side]][order.indexOf(image)]];
        item.append(element("img", "", { src: pictures[image], alt: each.classes[target[image]], width: 72, height: 72 }), element("span", `${each.classes[target[image]]}, not ${given}`));
        strip.append(item);
      }
      section.append(strip);
    });
    return section;
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
    const flipped = [];
    for (const each of data.answers) {
      const places = selected.map((index) => each.subjects.indexOf(index));
      if (places[0] >= 0 && places[1] >= 0 && places[0] !== places[1]) flipped.push(flips(each, places, names));
    }
    document.getElementById("flips").hidden = !flipped.length;
    document.querySelector("#flips .found").replaceChildren(...flipped);
    say(names[0] === names[1] ? "Choose two different backbones." : `${rows.length} shared metric${rows.length === 1 ? "" : "s"}.`);
  }

  for (const select of Object.values(controls)) select.addEventListener("change", show);
  show();
}

if (document.getElementById("leaderboard")) leaderboard(); else comparison();
