"use strict";

// Charts carry no colours but those of classes: `meta` is the number of a series, or "term" for a term of a loss.
function themed(figure) {
  const styles = getComputedStyle(document.documentElement);
  const colour = (name) => styles.getPropertyValue(name).trim();
  const axis = {
    gridcolor: colour("--hairline"), linecolor: colour("--hairline"), zeroline: false, fixedrange: true,
    automargin: true, ticklen: 4, tickcolor: "transparent", nticks: 6,
  };
  const layout = structuredClone(figure.layout);
  Object.assign(layout, {
    font: { family: styles.fontFamily, size: 12, color: colour("--muted") },
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", dragmode: false, hovermode: "closest",
    margin: { t: 8, r: 8, b: 28, l: 8 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { font: { family: styles.fontFamily, color: colour("--ink") }, bgcolor: colour("--paper"), bordercolor: colour("--hairline") },
  });
  layout.xaxis = { ...axis, ...layout.xaxis };
  layout.yaxis = { ...axis, ...layout.yaxis };
  const terms = figure.data.filter((trace) => trace.meta === "term");
  const data = structuredClone(figure.data).map((trace, index) => {
    const own = typeof trace.meta === "number" ? trace.meta : figure.data[0].meta + 1 + terms.indexOf(figure.data[index]);
    const ink = trace.marker?.color ?? colour(`--s${own % 6}`);
    if (trace.type === "heatmap") return { ...trace, colorscale: [[0, colour("--raised")], [1, ink]], showscale: false, xgap: 1, ygap: 1 };
    if (trace.type === "bar") return { ...trace, marker: { color: ink, opacity: 0.85 } };
    trace.line = { width: 2, ...trace.line, color: ink };
    trace.marker = { size: 8, opacity: trace.marker ? 1 : 0.75, line: { width: trace.marker ? 2 : 0, color: ink }, ...trace.marker, color: ink };
    return trace;
  });
  return { data, layout };
}

function draw() {
  for (const plot of document.querySelectorAll(".plot")) {
    plot.figure ??= JSON.parse(plot.querySelector("script").textContent);
    const { data, layout } = themed(plot.figure);
    Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
  }
}

// An inline drawing as text, with the styles that it has on the page.
function styled(svg) {
  const copied = svg.cloneNode(true), styles = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "font-weight"];
  const [from, to] = [svg, copied].map((root) => [root, ...root.querySelectorAll("*")]);
  from.forEach((part, place) => {
    const computed = getComputedStyle(part);
    for (const name of styles) to[place].style.setProperty(name, computed.getPropertyValue(name));
  });
  const { width, height } = svg.viewBox.baseVal;
  for (const [name, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height })) copied.setAttribute(name, value);
  copied.style.background = getComputedStyle(document.body).backgroundColor;
  return { url: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(copied.outerHTML)}`, width, height };
}

// The chart of a figure as a data URL; a PNG has two pixels for each of the page's.
async function picture(figure, format) {
  const plot = figure.querySelector(".plot");
  const { url, width, height } = plot ? await plotted(plot) : styled(figure.querySelector("svg"));
  if (format === "svg") return url;
  const image = new Image(), canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  image.src = url;
  await image.decode();
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png");
}

async function plotted(plot) {
  const layout = { ...plot.layout, paper_bgcolor: getComputedStyle(document.body).backgroundColor };
  const { clientWidth: width, clientHeight: height } = plot;
  return { url: await Plotly.toImage({ data: plot.data, layout }, { format: "svg", width, height }), width, height };
}

async function save(button) {
  const format = button.textContent.toLowerCase();
  const link = document.createElement("a");
  link.href = await picture(button.closest("figure"), format);
  link.download = `${button.dataset.title}.${format}`;
  link.click();
}

// The image behind a point of an embedding, beside the pointer.
function showThumbnails(plot) {
  const shown = Object.assign(document.createElement("div"), { className: "thumbnail", hidden: true });
  shown.style.backgroundImage = `url("${plot.dataset.sheet}")`;
  document.body.append(shown);
  plot.on("plotly_hover", ({ points, event }) => {
    const place = points[0].customdata, { side, columns } = plot.figure.layout.meta;
    const zoom = 96 / side;
    Object.assign(shown.style, { backgroundSize: `${columns * 96}px auto`, backgroundPosition: `-${(place % columns) * side * zoom}px -${Math.floor(place / columns) * side * zoom}px`, left: `${event.clientX + 16}px`, top: `${event.clientY + 16}px` });
    shown.hidden = false;
  });
  plot.on("plotly_unhover", () => { shown.hidden = true; });
}

// A table of the page as text; its sort arrows stay behind.
const FORMATS = {
  CSV: (rows) => rows.map((row) => row.map((text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)).join(",")),
  Markdown: (rows) => rows.map((row) => `| ${row.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`).toSpliced(1, 0, `|${" --- |".repeat(rows[0].length)}`),
  LaTeX: (rows) => [
    `\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`, "\\toprule",
    ...rows.map((row) => `${row.map((text) => text.replace(/[&%$#_{}]/g, "\\$&").replaceAll("±", "$\\pm$").replaceAll("↓", "$\\downarrow$").replaceAll("×", "$\\times$")).join(" & ")} \\\\`).toSpliced(1, 0, "\\midrule"),
    "\\bottomrule", "\\end{tabular}",
  ],
};

function tableText(table, format) {
  const said = (cell) => cell.textContent.replace(/[▲▼]/g, "").replace(/\s+/g, " ").trim() || cell.querySelector("[aria-label]")?.getAttribute("aria-label") || "";
  return FORMATS[format]([...table.rows].map((row) => [...row.cells].map(said))).join("\n");
}

async function copy(button) {
  const { table, format, copy } = button.dataset;
  const text = table ? tableText(document.querySelector(table), format) : document.getElementById(copy).textContent;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed to copy";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

document.addEventListener("click", ({ target }) => {
  if (target.matches("[data-table], [data-copy]")) copy(target);
  if (target.matches(".save")) save(target);
});

// A link to a protocol opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

draw();
document.querySelectorAll(".plot[data-sheet]").forEach(showThumbnails);
openTarget();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("hashchange", openTarget);
