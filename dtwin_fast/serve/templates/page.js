"use strict";
const find = id => document.getElementById(id);
const [form, file, drop, status, refusal, results] =
  ["ask", "file", "drop", "status", "refusal", "results"].map(find);
const button = form.querySelector("button");
let answer = null;

/** An element with texts and elements inside; what comes from the server is only ever text. */
function make(tag, attributes, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}

function table(part) {
  const wide = i => (i === 0 || part.words.includes(i) ? { class: "w" } : {});
  const head = part.titles.map((title, i) => make("th", { scope: "col", ...wide(i) }, title));
  const rows = part.rows.map(cells =>
    make("tr", {}, ...cells.map((cell, i) =>
      i === 0 ? make("th", { scope: "row" }, cell) : make("td", wide(i), cell))));
  return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": part.caption },
    make("table", {},
      make("caption", {}, part.caption),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...rows)));
}

function section(of) {
  const cards = of.cards.map(card =>
    make("li", {}, make("strong", {}, card.value), make("span", {}, card.label)));
  return make("section", { id: of.id, "aria-labelledby": `${of.id}-title` },
    make("h2", { id: `${of.id}-title` }, of.title),
    ...(of.lead ? [make("p", { class: "lead" }, of.lead)] : []),
    ...(cards.length ? [make("ul", { class: "cards" }, ...cards)] : []),
    ...of.parts.map(part => (typeof part === "string" ? make("p", {}, part) : table(part))));
}

async function ask() {
  const chosen = file.files[0];
  // Refused before it is sent: a server that stops reading looks like one that is not there.
  const most = file.dataset.mostMib;
  if (chosen.size > most * 2 ** 20) throw new Error(`This file is larger than ${most} MiB.`);
  const value = id => find(id).value;
  const address = new URLSearchParams({
    // The name itself may tell who it is, and stays here.
    format: (chosen.name.toLowerCase().match(/\.[a-z0-9]+$/) ?? [""])[0],
    unit: value("unit"), missing: value("missing"), target: value("target"),
  });
  const headers = { "Content-Type": "application/octet-stream" };
  if (find("token")) headers.Authorization = `Bearer ${value("token")}`;
  const response = await fetch(`page/person?${address}`, { method: "POST", headers, body: chosen });
  const said = await response.json();
  if (!response.ok) throw new Error(said.error);
  return said;
}

form.addEventListener("submit", async event => {
  event.preventDefault();
  if (button.disabled) return;
  button.disabled = true;
  results.hidden = true;
  refusal.textContent = "";
  status.textContent = "The twin is running …";
  try {
    answer = await ask();
    find("sections").replaceChildren(...answer.sections.map(section));
    results.hidden = false;
    results.focus();
    status.textContent = "Done.";
  } catch (error) {
    status.textContent = "";
    refusal.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
  } finally {
    button.disabled = false;
  }
});

for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, event => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
  });
}
document.addEventListener("drop", event => {
  if (!event.dataTransfer.files.length) return;
  file.files = event.dataTransfer.files;
  form.requestSubmit();
});

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}
find("save-report").addEventListener("click", () => save("dtwin-report.html", "text/html", answer.report));
find("save-results").addEventListener("click", () =>
  save("dtwin-results.json", "application/json", JSON.stringify(answer.results, null, 1)));
