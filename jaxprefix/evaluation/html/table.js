"use strict";

// Numbers as in the other files of a study: ties go to the even digit, as Python rounds them.
const rounded = (digits, signDisplay = "auto") => new Intl.NumberFormat("en", {
  minimumFractionDigits: digits, maximumFractionDigits: digits, roundingMode: "halfEven", useGrouping: false,
  signDisplay,
});
const ONE = rounded(1), SIGNED = rounded(1, "always"), FOUR = rounded(4);
const MISSING = "–";
const LEVEL = 0.05;  // smaller corrected p values have a star

const percent = (value) => value === null ? MISSING : ONE.format(100 * value);
const points = (value) => value === null ? MISSING : SIGNED.format(100 * value);

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function span(estimate, toText = percent) {
  return !estimate || estimate.low === null ? MISSING : `${toText(estimate.low)}..${toText(estimate.high)}`;
}

// A column of the table. `where` is set if its scores have questions: a language, or a group such as "script Cyrl".
function scoreColumn(title, figure, about, where, toText = percent) {
  const found = (row) => figure(row.tasks[state.task]) || null;
  return {
    title, about, where,
    value: (row) => found(row) && found(row).value,
    text: (row) => toText(found(row) && found(row).value),
    detail: (row) => span(found(row), toText),
  };
}

function summaryColumns(rows) {
  const mean = (name) => (figures) => figures && figures.means[name];
  const difference = (row) => row.tasks[state.task] && row.tasks[state.task].against_baseline;
  const columns = [{
    title: "trainable", about: "trainable parameters", where: null,
    value: (row) => row.trainable,
    text: (row) => row.trainable === null ? MISSING : row.trainable.toLocaleString("en"),
  }];
  columns.push(scoreColumn("source", mean("source"), "the training language", "source"));
  columns.push(scoreColumn("others", mean("others"), "the mean of the other languages", ""));
  columns.push({
    title: "interval", about: "the 95% interval of the mean of the others", where: null,
    value: (row) => { const found = mean("others")(row.tasks[state.task]); return found ? found.low : null; },
    text: (row) => span(mean("others")(row.tasks[state.task])),
  });
  if (rows.some((row) => row.tasks[state.task] && "others" in row.tasks[state.task].sd)) {
    const sd = (row) => row.tasks[state.task] && row.tasks[state.task].sd.others;
    columns.push({
      title: "sd", about: "the standard deviation of the mean of the others over the seeds", where: null,
      value: (row) => sd(row) ?? null, text: (row) => percent(sd(row) ?? null),
    });
  }
  columns.push(scoreColumn("gap", mean("gap"), "the training language minus the mean of the others", null, points));
  if (rows.some(difference)) {
    columns.push({
      title: "− base", about: "the difference from the baseline in the mean of the others", where: null,
      value: (row) => difference(row) ? difference(row).difference : null,
      text: (row) => difference(row) ? points(difference(row).difference) + starOf(row) : MISSING,
      detail: (row) => difference(row) ? span(difference(row), points) : MISSING,
    }, {
      title: "p Holm", about: "the corrected p value of this difference", where: null,
      value: (row) => difference(row) ? difference(row).p_holm : null,
      text: (row) => difference(row) ? FOUR.format(difference(row).p_holm) : MISSING,
    });
  }
  return columns;
}

// The columns of languages or of their groups, which the heat map shows as well.
function spreadColumns(rows) {
  const done = rows.map((row) => row.tasks[state.task]).filter(Boolean);
  if (state.columns === "language") {
    const sources = new Set(done.map((figures) => figures.source));
    const codes = [...new Set(done.flatMap((figures) => Object.keys(figures.languages)))].filter(isShown);
    codes.sort((a, b) => sources.has(b) - sources.has(a) || (a < b ? -1 : 1));
    return codes.map((code) => scoreColumn(code, (figures) => figures && figures.languages[code], nameOf(code), code));
  }
  const start = `${state.columns} `, means = done.flatMap((figures) => Object.keys(figures.means));
  const names = [...new Set(means)].filter((name) => name.startsWith(start) && membersOf(name).some(isShown));
  return names.sort().map((name) => {
    const about = `the mean of ${name}, without the training language`;
    return scoreColumn(name.slice(start.length), (figures) => figures && figures.means[name], about, name);
  });
}

// A star if the row differs from the baseline, with a corrected p value.
function starOf(row) {
  const difference = row.tasks[state.task].against_baseline;
  return difference && difference.p_holm < LEVEL ? "*" : "";
}

const nameOf = (code) => page.languages[code] ? page.languages[code].name : code;

// The codes of a language or of a group.
function membersOf(where) {
  const [kind, ...rest] = where.split(" ");
  if (!rest.length) return [where];
  return Object.keys(page.languages).filter((code) => page.languages[code][kind] === rest.join(" "));
}

const termsOf = (text) => text.toLowerCase().split(",").map((term) => term.trim()).filter(Boolean);

function isShown(code) {
  const language = page.languages[code], terms = termsOf(state.languages);
  if (!terms.length) return true;
  const exact = [code, language.tag].map((text) => text.toLowerCase());
  const parts = [language.name, language.script, language.family].map((text) => (text || "").toLowerCase());
  return terms.some((term) => exact.includes(term) || (term.length > 2 && parts.some((part) => part.includes(term))));
}

function shownRows() {
  const terms = termsOf(state.rows), rows = page.tables[state.table].rows.filter((row) => row.tasks[state.task]);
  return rows.filter((row) => !terms.length || terms.some((term) => row.name.toLowerCase().includes(term)));
}

const NAME = { title: "row", about: "the settings of the row", value: (row) => row.name };

function sortedRows() {
  const rows = shownRows(), columns = [NAME, ...summaryColumns(rows), ...spreadColumns(rows)];
  const column = columns.find((other) => other.title === state.sort.title);
  if (!column) return rows;
  const sign = state.sort.descending ? -1 : 1;
  return rows.sort((a, b) => {
    const [left, right] = [column.value(a), column.value(b)];
    if (left === null || right === null) return (left === null) - (right === null);
    return sign * (typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right);
  });
}

function drawTable() {
  const rows = sortedRows(), columns = [...summaryColumns(rows), ...spreadColumns(rows)];
  const table = document.getElementById("scores"), head = element("tr"), body = element("tbody");
  for (const column of [NAME, ...columns]) head.append(heading(column));
  for (const row of rows) {
    const line = element("tr", "", row.is_baseline ? { class: "base" } : {});
    line.append(element("th", row.name, { scope: "row", tabindex: "-1" }));
    for (const column of columns) line.append(cell(row, column));
    body.append(line);
  }
  const header = element("thead");
  header.append(head);
  table.replaceChildren(header, body);
  focusable(table.rows[0].cells[0]).tabIndex = 0;
}

function heading(column) {
  const isSorted = state.sort.title === column.title;
  const order = !isSorted ? "none" : state.sort.descending ? "descending" : "ascending";
  const made = element("th", "", { scope: "col", "aria-sort": order });
  const mark = !isSorted ? "" : state.sort.descending ? " ▼" : " ▲";
  const button = element("button", column.title + mark, { type: "button", tabindex: "-1", title: column.about });
  button.addEventListener("click", () => {
    const first = column !== NAME;  // figures begin with the highest
    state.sort = { title: column.title, descending: isSorted ? !state.sort.descending : first };
    const index = made.cellIndex;
    drawTable();
    moveTo(document.getElementById("scores").rows[0].cells[index]);
  });
  made.append(button);
  return made;
}

function cell(row, column) {
  const made = element("td"), value = column.value(row);
  const detail = column.detail && column.detail(row) !== MISSING ? `, 95% interval ${column.detail(row)}` : "";
  const about = `${row.name}, ${column.about}: ${column.text(row)}${detail}`;
  const opens = column.where !== null && value !== null;
  const inner = opens ? element("button", column.text(row), { type: "button" }) : element("span", column.text(row));
  inner.tabIndex = -1;
  inner.title = about;
  if (value !== null) made.dataset.value = value;
  made.dataset.row = page.tables[state.table].rows.indexOf(row);
  made.dataset.column = column.title;
  inner.addEventListener("focus", () => { document.getElementById("status").textContent = about; });
  if (opens) {
    const where = column.where === "source" ? row.tasks[state.task].source : column.where;
    inner.addEventListener("click", () => openAnswers(row, where));
  }
  made.append(inner);
  return made;
}

const focusable = (cell) => cell.querySelector("button, span") || cell;

function moveTo(cell) {
  for (const other of document.querySelectorAll('#scores [tabindex="0"]')) other.tabIndex = -1;
  focusable(cell).tabIndex = 0;
  focusable(cell).focus();
  cell.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// One stop of the tab key for the whole table; the arrow keys move inside it.
function arrows(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const at = event.target.closest("th, td"), step = steps[event.key];
  if (!at || (!step && event.key !== "Home" && event.key !== "End")) return;
  event.preventDefault();
  const rows = document.getElementById("scores").rows, row = at.parentNode.rowIndex;
  const inside = (value, length) => Math.min(Math.max(value, 0), length - 1);
  const target = rows[inside(row + (step ? step[0] : 0), rows.length)], count = target.cells.length;
  const column = event.key === "Home" ? 0 : event.key === "End" ? count - 1 : at.cellIndex + step[1];
  moveTo(target.cells[inside(column, count)]);
}
