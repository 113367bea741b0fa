"use strict";
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const stored = `slmops-review:${sheet.review}:${sheet.rater}`;
const part = id => document.getElementById(id);
const roles = {system: "Instructions", user: "Question", assistant: "Earlier answer"};
const keys = {1: "1", a: "1", 2: "2", b: "2", t: "tie", x: "both bad"};
let said = {}, at = 0, kept = true, saved = true;

function load() {
  try {
    said = JSON.parse(localStorage.getItem(stored)) || {};
    localStorage.setItem(stored, JSON.stringify(said));
  } catch {
    kept = false;
    part("unkept").hidden = false;
  }
  at = upcoming(0);
}

function keep(change) {
  const row = sheet.rows[at].row;
  said[row] = {verdict: "", comment: "", ...said[row], ...change};
  saved = false;
  if (!kept) return;
  try {
    localStorage.setItem(stored, JSON.stringify(said));
  } catch {
    kept = false;
    part("unkept").hidden = false;
  }
}

const verdictOf = row => (said[row.row] || {}).verdict || "";

// The next row without a verdict from a place on, else the last row.
function upcoming(from) {
  const order = [...sheet.rows.keys()];
  const next = [...order.slice(from), ...order.slice(0, from)].find(place => !verdictOf(sheet.rows[place]));
  return next === undefined ? sheet.rows.length - 1 : next;
}

function show() {
  const row = sheet.rows[at], judged = sheet.rows.filter(verdictOf).length;
  part("turns").replaceChildren(...row.turns.map(turn => {
    const card = document.createElement("div"), head = document.createElement("h3"), text = document.createElement("p");
    card.className = "card turn";
    head.textContent = roles[turn.role] || turn.role;
    text.className = "text";
    text.dir = "auto";
    text.textContent = turn.content;
    card.append(head, text);
    return card;
  }));
  row.answers.forEach((answer, number) => {
    const place = part(`said-${number + 1}`);
    place.querySelector(".text").textContent = answer || "(an empty answer)";
    place.classList.toggle("picked", verdictOf(row) === String(number + 1));
  });
  for (const button of document.querySelectorAll("[data-verdict]"))
    button.setAttribute("aria-pressed", String(button.dataset.verdict === verdictOf(row)));
  part("comment").value = (said[row.row] || {}).comment || "";
  part("back").disabled = at === 0;
  part("on").disabled = at === sheet.rows.length - 1;
  part("place").textContent = `Row ${at + 1} of ${sheet.rows.length}, ${judged} judged` + (judged === sheet.rows.length ? ": all done, save your verdicts" : "");
  part("done").max = sheet.rows.length;
  part("done").value = judged;
}

function go(place) {
  at = Math.min(Math.max(place, 0), sheet.rows.length - 1);
  show();
  document.querySelector(".bar").scrollIntoView();
}

function judge(verdict) {
  keep({verdict});
  go(upcoming(at));
}

// Quoted, with line breaks and quotes as they are; a text that begins like a formula gets a mark in front.
const cell = text => `"${(/^[=+\-@\t\r]/.test(text) ? "'" + text : text).replaceAll('"', '""')}"`;

function save() {
  const lines = [["review", "rater", "row", "verdict", "comment"]];
  for (const row of sheet.rows) {
    const {verdict, comment} = said[row.row] || {};
    if (verdict || comment) lines.push([sheet.review, sheet.rater, row.row, verdict || "", comment || ""]);
  }
  const text = "\ufeff" + lines.map(line => line.map(cell).join(",") + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = `verdicts-${sheet.rater}.csv`;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  saved = true;
}

for (const button of document.querySelectorAll("[data-verdict]")) button.addEventListener("click", () => judge(button.dataset.verdict));
part("back").addEventListener("click", () => go(at - 1));
part("on").addEventListener("click", () => go(at + 1));
part("save").addEventListener("click", save);
part("comment").addEventListener("input", event => keep({comment: event.target.value}));
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === part("comment")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.toLowerCase();
  if (Object.hasOwn(keys, key)) judge(keys[key]);
  else if (key === "arrowleft") go(at - 1);
  else if (key === "arrowright") go(at + 1);
  else if (key === "s") save();
  else if (key === "c") part("comment").focus();
  else return;
  event.preventDefault();
});
addEventListener("beforeunload", event => {
  if (!kept && !saved) event.preventDefault();
});
load();
show();
