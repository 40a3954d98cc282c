"use strict";

const FIRST = 20;  // questions at a time
const MOST_CARDS = 12;  // answers of a question
const HALF = 0.5;  // from this score on, an answer is right
const LETTERS = 160, ENOUGH = 30;  // of a question in the list: at most, and at least
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{1e800}-\u{1eeff}]/u;

let unpacked = null;  // a promise of the questions, and of the answers by run and question

function answers() {
  unpacked ??= (async () => {
    const letters = atob(document.getElementById("packed").textContent);
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const found = JSON.parse(await new Response(stream).text());
    const index = new Map(found.questions.map((question, number) => [keyOf(question), number]));
    const byCell = new Map();
    for (const [cell, rows] of Object.entries(found.answers)) {
      byCell.set(cell, new Map(rows.map(([number, ...answer]) => [number, answer])));
    }
    return { questions: found.questions, index, byCell };
  })();
  return unpacked;
}

const keyOf = ({ task, language, id }) => JSON.stringify([task, language, id]);

// The answers of a row, one for each seed: [text, what was read from it, score, notes].
function answersOf(row, number, all) {
  return row.cells.map((cell, index) => ({ seed: row.seeds[index], answer: all.byCell.get(cell)?.get(number) }))
    .filter(({ answer }) => answer);
}

// Whether a row's answer to a question is right, by the mean over its seeds; null without an answer.
function isRight(row, number, all) {
  const found = number === undefined ? [] : answersOf(row, number, all);
  return found.length ? found.reduce((sum, { answer }) => sum + answer[2], 0) / found.length >= HALF : null;
}

function openAnswers(row, where) {
  document.getElementById("where").value = where;
  document.getElementById("who").value = String(page.tables[state.table].rows.indexOf(row));
  document.getElementById("what").value = "";
  listQuestions().then(() => {
    document.getElementById("answers-section").scrollIntoView();
    document.getElementById("answers-title").focus({ preventScroll: true });
  });
}

function fillFilters() {
  const table = page.tables[state.table], where = document.getElementById("where"), kept = where.value;
  const done = table.rows.map((row) => row.tasks[state.task]).filter(Boolean);
  const codes = [...new Set(done.flatMap((figures) => Object.keys(figures.languages)))].sort();
  const means = new Set(done.flatMap((figures) => Object.keys(figures.means)));
  const groups = [...means].filter((name) => name.includes(" ")).sort();
  const option = (value, text) => element("option", text, { value });
  const languages = () => codes.map((code) => option(code, nameOf(code) === code ? code : `${code} ${nameOf(code)}`));
  const grouped = groups.map((name) => option(name, name.replace("resource", "resource class")));
  where.replaceChildren(option("", "all"), ...languages(), ...grouped);
  where.value = kept;
  if (where.selectedIndex < 0) where.value = "";
  document.getElementById("who").replaceChildren(option("", "any row"),
    ...table.rows.flatMap((row, index) => row.tasks[state.task] ? [option(String(index), row.name)] : []));
  document.getElementById("opposite").replaceChildren(option("", "any language"), ...languages());
}

async function listQuestions(most = FIRST) {
  const all = await answers(), value = (id) => document.getElementById(id).value;
  const [where, who, what, other] = ["where", "who", "what", "opposite"].map(value), wanted = what === "right";
  document.getElementById("opposite-label").hidden = !what;
  document.getElementById("opposite-text").textContent = wanted ? "and wrong in" : "and right in";
  const table = page.tables[state.table];
  const rows = who === "" ? shownRows() : [table.rows[Number(who)]];
  const codes = new Set(where === "" ? Object.keys(page.languages) : membersOf(where));
  const of = (number, code) => all.index.get(keyOf({ ...all.questions[number], language: code }));
  const numbers = [...all.questions.keys()].filter((number) => {
    const question = all.questions[number];
    if (question.task !== state.task || !codes.has(question.language)) return false;
    return rows.some((row) => {
      const right = isRight(row, number, all);
      if (right === null || !what) return right !== null;
      return right === wanted && (other === "" || isRight(row, of(number, other), all) === !wanted);
    });
  });
  const shown = what && other ? (number) => [number, of(number, other)] : (number) => [number];
  document.getElementById("count").textContent = `${numbers.length.toLocaleString("en")} questions`;
  const list = numbers.slice(0, most).map((number) => questionOf(shown(number), who, all));
  document.getElementById("questions").replaceChildren(...list);
  const more = document.getElementById("more");
  more.hidden = numbers.length <= most;
  more.onclick = () => listQuestions(most + FIRST);
}

// A question, closed; the same one in another language is inside as well.
function questionOf(numbers, who, all) {
  const question = all.questions[numbers[0]], made = element("details"), summary = element("summary");
  const rows = cardRows(who), end = endOf(question.prompt);
  const marks = rows.map((row) => isRight(row, numbers[0], all)).filter((right) => right !== null);
  summary.append(element("b", `${question.language} ${question.id}`), " ",
    element("span", `${marks.filter(Boolean).length} of ${marks.length} right`, { class: "tally" }), " ",
    element("bdi", end, directionOf(end, question.language)));
  made.append(summary);
  made.addEventListener("toggle", () => {
    if (!made.open || made.children.length > 1) return;
    const body = element("div", "", { class: "body" });
    for (const number of numbers) body.append(...partsOf(all.questions[number], number, rows, all));
    made.append(body);
  });
  return made;
}

// The last lines of a prompt, where its question is.
function endOf(prompt) {
  const lines = prompt.split("\n").map((line) => line.trim()).filter(Boolean);
  let end = lines.pop() || "";
  while (end.length < ENOUGH && lines.length) end = `${lines.pop()} ${end}`;
  return end.length > LETTERS ? `…${end.slice(-LETTERS)}` : end;
}

// The rows whose answers are shown: the one that is asked for, the baseline, and the other rows of the table.
function cardRows(who) {
  const asked = who === "" ? null : page.tables[state.table].rows[Number(who)];
  const rank = (row) => row === asked ? 0 : row.is_baseline ? 1 : 2;
  return [...new Set([...(asked ? [asked] : []), ...shownRows()])].sort((a, b) => rank(a) - rank(b));
}

function partsOf(question, number, rows, all) {
  const { language, id, prompt, choices, references } = question;
  const parts = [element("h3", `${language} ${nameOf(language)}, ${id}`), textOf(prompt, language)];
  if (choices.length) parts.push(element("h3", "Choices"), textOf(choices.join("\n"), language));
  parts.push(element("h3", "Expected"), textOf(references.join("\n"), language), element("h3", "Answers"));
  const cards = element("div", "", { class: "cards" });
  const found = rows.flatMap((row) => answersOf(row, number, all).map((answer) => ({ row, ...answer })));
  for (const answer of found.slice(0, MOST_CARDS)) cards.append(cardOf(answer, language));
  parts.push(cards);
  const left = found.length - MOST_CARDS;
  if (left > 0) parts.push(element("p", `${left} more answers; "Only rows with" selects them.`));
  return parts;
}

function cardOf({ row, seed, answer: [text, read, score, notes] }, language) {
  const [mark, kind] = score >= HALF ? ["✓", "right"] : ["✗", "wrong"], card = element("div", "", { class: "card" });
  const title = element("h4", row.cells.length > 1 ? `${row.name}, seed ${seed} ` : `${row.name} `);
  title.append(element("span", `${mark} ${kind}, ${percent(score)}`, { class: kind }));
  card.append(title, textOf(text, language));
  if (read) card.append(element("p", "read as:"), textOf(read, language));
  if (notes.length) card.append(element("p", notes.join("; ")));
  return card;
}

function directionOf(line, language) {
  const known = page.languages[language];
  return { lang: known ? known.tag : "", dir: known?.right_to_left && RIGHT_TO_LEFT.test(line) ? "rtl" : "auto" };
}

// Each line is isolated, so that the direction of one does not change another.
function textOf(text, language) {
  const made = element("div", "", { class: "text", tabindex: "0" });
  for (const line of text.trimEnd().split("\n")) made.append(element("div", line, directionOf(line, language)));
  return made;
}
