"use strict";

// The palette of Okabe and Ito, without its yellow, which is too pale for lines: https://jfly.uni-koeln.de/color/
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D31"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SCORES = [[0, "#ffffff"], [1, "#6ba6d8"]];
const GAINS = [[0, "#e8a15c"], [0.5, "#ffffff"], [1, "#6ba6d8"]];
const INK = "#111111";  // of the numbers, on all colours of the two scales
const MOST_TEXTS = 40;  // columns with their numbers
const MOST_NAMES = 12;  // lines with a legend
const APART = 0.03;  // between the points of two lines, so that their intervals do not overlap
const LETTER = 7;  // pixels
const ROW = 24;  // pixels
const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [["toImage"]] };

// Plotly reads some HTML tags in its texts.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const narrow = () => window.innerWidth < 600;
const short = (text) => {
  const most = narrow() ? 16 : 40;
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
};
const marginOf = (names) => LETTER * Math.max(4, ...names.map((name) => short(name).length)) + 20;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const styleOf = (number) => ({
  color: COLOURS[number % COLOURS.length], dash: DASHES[Math.floor(number / COLOURS.length) % DASHES.length],
});

function draw(target, traces, { xaxis, yaxis, ...more }, onPoint) {
  const [text, line, muted] = ["--text", "--line", "--muted"].map(colour);
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, zeroline: false };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size: 12 },
    margin: { t: 30, r: 20, b: 45, l: 40 }, hoverlabel: { align: "left" }, dragmode: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: text },
    ...more, xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis },
  };
  Plotly.react(target, traces, layout, CONFIG);
  target.removeAllListeners("plotly_click");
  target.on("plotly_click", (event) => onPoint(event.points[0]));
}

const rowAxis = (names) => ({
  tickvals: [...names.keys()], ticktext: names.map((name) => plain(short(name))), autorange: "reversed",
  automargin: false,
});

// `columns` are [{title, about}], and `values` are in 0..1, or null.
function heatMap(target, names, columns, values, { signed = false, onCell }) {
  const toText = signed ? points : percent, wide = columns.length > MOST_TEXTS;
  const longest = Math.max(0, ...columns.map(({ title }) => title.length)), upright = !wide && longest <= 4;
  const most = Math.max(1e-9, ...values.flat().map((value) => 100 * Math.abs(value ?? 0)));
  const about = (value, x, y) => plain(`${names[y]}, ${columns[x].about}: ${toText(value)}`);
  const trace = {
    type: "heatmap", z: values.map((line) => line.map((value) => value === null ? null : 100 * value)),
    zmin: signed ? -most : 0, zmax: most, colorscale: signed ? GAINS : SCORES, xgap: 1, ygap: 1,
    text: values.map((line, y) => line.map((value, x) => about(value, x, y))),
    hovertemplate: "%{text}<extra></extra>", showscale: !narrow(),
    colorbar: { title: { text: signed ? "points" : "%" }, thickness: 12 },
  };
  const numbers = wide ? [] : values.flatMap((line, y) => line.map((value, x) => (
    { x, y, text: value === null ? "" : toText(value), showarrow: false, font: { color: INK, size: 11 } })));
  const left = marginOf(names), below = upright ? 30 : 20 + LETTER * longest;
  target.style.minWidth = `${left + columns.length * (wide ? 14 : 42) + (narrow() ? 20 : 90)}px`;
  draw(target, [trace], {
    height: ROW * names.length + 70 + below, margin: { t: 30, r: 20, b: below, l: left }, annotations: numbers,
    xaxis: {
      tickvals: [...columns.keys()], ticktext: columns.map(({ title }) => plain(title)), tickangle: upright ? 0 : -90,
      showgrid: false, automargin: false,
    },
    yaxis: { ...rowAxis(names), showgrid: false },
  }, (point) => onCell(point.pointIndex[0], point.pointIndex[1]));
}

function drawHeatMap() {
  const rows = sortedRows(), columns = spreadColumns(rows), names = rows.map((row) => row.name);
  const values = rows.map((row) => columns.map((column) => column.value(row)));
  const onCell = (y, x) => openAnswers(rows[y], columns[x].where);
  heatMap(document.getElementById("heat"), names, columns, values, { onCell });
}

const meanOf = (row) => row.tasks[state.task].means.others || row.tasks[state.task].means.all;

function intervalsOf(estimates, color) {
  const length = (estimate, end) => estimate.low === null ? 0 : 100 * Math.abs(estimate[end] - estimate.value);
  return {
    type: "data", symmetric: false, thickness: 1.2, width: 3, color,
    array: estimates.map((estimate) => length(estimate, "high")),
    arrayminus: estimates.map((estimate) => length(estimate, "low")),
  };
}

function aboutMean(row) {
  const estimate = meanOf(row), difference = row.tasks[state.task].against_baseline;
  const against = difference ? `, ${points(difference.difference)}${starOf(row)} against the baseline` : "";
  return plain(`${row.name}: ${percent(estimate.value)} (${span(estimate)})${against}`);
}

// The means of the others: lines over the axis of the table, or a point for each row.
function drawMeans() {
  const { x } = page.tables[state.table], title = "Mean of the other languages";
  document.getElementById("means-title").textContent = x ? `${title} over ${x}` : title;
  (x ? drawLines : drawPoints)(document.getElementById("means"), sortedRows(), x);
}

function drawLines(target, rows, x) {
  const values = [...new Set(page.tables[state.table].rows.map((row) => row.labels[x] ?? null))];
  const ticks = values.filter((value) => value !== null), lines = new Map();
  for (const row of rows) {
    const others = Object.entries(row.labels).filter(([axis, value]) => axis !== x && value !== null);
    const name = others.map(([, value]) => value).join(", ") || "others", at = ticks.indexOf(row.labels[x]);
    // A row that does not have the axis is a level line.
    for (const tick of at < 0 ? ticks.keys() : [at]) lines.set(name, [...(lines.get(name) || []), { tick, row }]);
  }
  const traces = [...lines].map(([name, found], number) => {
    found.sort((a, b) => a.tick - b.tick);
    const estimates = found.map(({ row }) => meanOf(row)), style = styleOf(number);
    return {
      type: "scatter", mode: "lines+markers", name: plain(short(name)), line: { ...style, width: 1.6 },
      x: found.map(({ tick }) => tick + APART * (number - (lines.size - 1) / 2)),
      y: estimates.map((estimate) => 100 * estimate.value), error_y: intervalsOf(estimates, style.color),
      marker: { symbol: found.map(({ row }) => starOf(row) ? "star" : "circle"), size: 9 },
      customdata: found.map(({ row }) => rows.indexOf(row)),
      hovertext: found.map(({ row }) => aboutMean(row)), hovertemplate: "%{hovertext}<extra></extra>",
    };
  });
  draw(target, traces, {
    height: 360, showlegend: traces.length > 1, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    xaxis: { tickvals: [...ticks.keys()], ticktext: ticks.map(plain), title: { text: plain(x) } },
    yaxis: { title: { text: "%" } },
  }, (point) => openAnswers(rows[point.customdata], ""));
}

function drawPoints(target, rows) {
  const estimates = rows.map(meanOf), names = rows.map((row) => row.name + (starOf(row) && " *"));
  const trace = {
    type: "scatter", mode: "markers", x: estimates.map((estimate) => 100 * estimate.value), y: [...rows.keys()],
    error_x: intervalsOf(estimates, colour("--muted")),
    marker: { color: rows.map((row) => COLOURS[row.is_baseline ? 3 : 0]), size: 8 },
    hovertext: rows.map(aboutMean), hovertemplate: "%{hovertext}<extra></extra>",
  };
  draw(target, [trace], {
    height: ROW * rows.length + 90, margin: { t: 20, r: 20, b: 45, l: marginOf(names) },
    xaxis: { title: { text: "%" } }, yaxis: rowAxis(names), showlegend: false,
  }, (point) => openAnswers(rows[point.pointIndex], ""));
}

function drawMatrices() {
  const table = page.tables[state.table], holder = document.getElementById("matrices");
  const matrices = table.matrices[state.task] || [];
  document.getElementById("matrix-section").hidden = !matrices.length;
  holder.replaceChildren();
  for (const { title, languages, lines } of matrices) {
    const label = `Training language by language: ${title}`, scroll = element("div", "", { class: "scroll" });
    const target = element("div", "", { class: "figure", role: "img", "aria-label": label });
    scroll.append(target);
    holder.append(element("h3", title), scroll);
    const kept = [...languages.keys()].filter((index) => isShown(languages[index]));
    const columns = kept.map((index) => ({ title: languages[index], about: nameOf(languages[index]) }));
    const values = lines.map((line) => kept.map((index) => line.values[index]));
    const onCell = (y, x) => openAnswers(table.rows[lines[y].row], columns[x].title);
    heatMap(target, lines.map(({ source }) => `trained in ${source}`), columns, values, { signed: true, onCell });
  }
}

function drawCurves() {
  const runs = shownRows().flatMap((row, number) => row.cells.map((cell, index) => (
    { row, number, seed: row.seeds[index], curve: page.curves[cell] }))).filter(({ curve }) => curve);
  document.getElementById("curves-section").hidden = !runs.length;
  if (!runs.length) return;
  const traces = runs.flatMap(({ row, number, seed, curve }) => {
    const name = plain(row.cells.length > 1 ? `${short(row.name)}, seed ${seed}` : short(row.name));
    const trace = (points, width, more) => ({
      type: "scatter", x: points.map(([step]) => step), y: points.map(([, loss]) => loss), name, legendgroup: name,
      line: { ...styleOf(number), width }, hovertemplate: `${name}, step %{x}: %{y:.4f}<extra></extra>`, ...more,
    });
    const withHeldOut = curve.held_out.length > 0;
    return [
      trace(curve.training, 0.8, { mode: "lines", opacity: 0.55, showlegend: !withHeldOut }),
      trace(curve.held_out, 1.8, { mode: "lines+markers", showlegend: withHeldOut }),
    ];
  });
  draw(document.getElementById("curves"), traces, {
    height: 400, showlegend: runs.length <= MOST_NAMES, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    xaxis: { title: { text: "step" } }, yaxis: { title: { text: "loss" } },
  }, (point) => openAnswers(runs[Math.floor(point.curveNumber / 2)].row, ""));
}

function drawFigures() {
  drawHeatMap();
  drawMeans();
  drawMatrices();
  drawCurves();
}
