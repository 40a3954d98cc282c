"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const state = {
  table: 0, task: "", columns: "language", rows: "", languages: "", sort: { title: "", descending: true },
};

function drawAll() {
  const table = page.tables[state.table], metric = table.rows.map((row) => row.tasks[state.task]?.metric).find(Boolean);
  document.getElementById("scores-title").textContent =
    [table.title ? `${table.name}: ${table.title}` : table.name, state.task, metric].filter(Boolean).join(" · ");
  drawTable();
  fillFilters();
  drawFigures();
  listQuestions();
}

function chooseTable(index) {
  const table = page.tables[index], tasks = [...new Set(table.rows.flatMap((row) => Object.keys(row.tasks)))];
  state.table = index;
  state.task = tasks.includes(state.task) ? state.task : tasks[0] || "";
  document.getElementById("task").replaceChildren(...tasks.map((task) => element("option", task, { value: task })));
  document.getElementById("task").value = state.task;
  const origins = page.origins.map(([what, values]) => element("li", `${what}: ${values}`));
  document.getElementById("notes").replaceChildren(...table.notes.map((note) => element("li", note)), ...origins);
  document.getElementById("notes").parentNode.hidden = !table.notes.length && !origins.length;
  drawAll();
}

function start() {
  const by = (id) => document.getElementById(id);
  by("title").textContent = page.title;
  by("about").textContent = page.about;
  by("table").replaceChildren(...page.tables.map((table, index) => element("option", table.name, { value: index })));
  by("table").parentNode.hidden = page.tables.length < 2;
  by("table").addEventListener("change", (event) => chooseTable(Number(event.target.value)));
  for (const [id, kind] of [["task", "change"], ["columns", "change"], ["rows", "input"], ["languages", "input"]])
    by(id).addEventListener(kind, (event) => { state[id] = event.target.value; drawAll(); });
  for (const id of ["where", "who", "what", "opposite"]) by(id).addEventListener("change", () => listQuestions());
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  by("scores").addEventListener("keydown", arrows);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawFigures);
  chooseTable(0);
}

start();
