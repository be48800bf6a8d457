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
    hoverlabel: { font: { family: styles.fontFamily }, bgcolor: colour("--paper"), bordercolor: colour("--hairline") },
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

async function save(plot, title) {
  const svg = await Plotly.toImage(plot, { format: "svg", imageDataOnly: true, width: plot.clientWidth, height: plot.clientHeight });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  link.download = `${title}.svg`;
  link.click();
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
  if (target.matches(".save")) save(target.closest(".chart").querySelector(".plot"), target.closest(".chart").querySelector(".chart-title").textContent);
});

// A link to a protocol opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

draw();
openTarget();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("hashchange", openTarget);
