"use strict";
// The gallery: filters, cards, progressive rendering. Prompts, reasons and names are strangers' text:
// they reach the page through textContent and attributes only, never as markup.

const PAGE = 60; // cards added at once; more follow as the reader scrolls
const PIXELATED = 128; // smaller images are enlarged in hard squares
const STATES = { pass: "Pass", fail: "Fail", scored: "Scored", none: "No verdict" };

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const images = data.images.map((image, number) => {
  const prompt = data.prompts[image.prompt];
  return { ...image, number, prompt, key: `${prompt.id}/${image.index}`, text: prompt.text.toLowerCase() };
});
const filters = { verdict: "", task: "", split: "", query: "" };
let shown = images;
let added = 0;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function figure(value) {
  return value === null || value === undefined ? "–" : value.toFixed(value > 1 ? 2 : 3);
}

function badge(image) {
  const label = image.state === "scored" ? figure(image.score) : STATES[image.state];
  return element("span", `badge ${image.state}`, label);
}

function readable(name) {
  return name.replaceAll("_", " ");
}

function explanation(image) {
  return image.reason || (image.state === "none" ? image.problem || "" : "");
}

// `without` names a filter to leave out: each choice counts what it would show.
function matches(image, without) {
  return (
    (without === "verdict" || !filters.verdict || image.state === filters.verdict) &&
    (without === "task" || !filters.task || image.prompt.task === filters.task) &&
    (without === "split" || !filters.split || image.prompt.split === filters.split) &&
    (!filters.query || image.text.includes(filters.query.toLowerCase()))
  );
}

function tally(field, read) {
  const counts = new Map([["", 0]]);
  for (const image of images) {
    if (!matches(image, field)) continue;
    counts.set("", counts.get("") + 1);
    counts.set(read(image), (counts.get(read(image)) || 0) + 1);
  }
  return counts;
}

function imageFrame(image, size) {
  const frame = element("span", "image-frame");
  if (!image.src) {
    frame.classList.add("absent");
    frame.append(element("span", "", "No image"));
    return frame;
  }
  const made = element("img", Math.max(...image.size) < PIXELATED ? "pixelated" : "");
  made.loading = "lazy";
  made.decoding = "async";
  made.alt = "";
  [made.width, made.height] = image.size;
  made.src = size === "full" ? image.full || image.src : image.src;
  frame.append(made);
  return frame;
}

function card(image) {
  const item = element("li");
  const button = element("button", `card ${image.state}`);
  button.type = "button";
  button.dataset.key = image.key;
  button.dataset.number = image.number;
  button.title = image.key;
  const line = element("span", "line");
  line.append(badge(image), element("span", "muted", `#${image.index}`));
  const prompt = element("span", "prompt", image.prompt.text);
  prompt.dir = "auto";
  button.append(imageFrame(image), line, prompt);
  if (explanation(image)) button.append(element("span", "reason", explanation(image)));
  item.append(button);
  return item;
}

function addPage() {
  const page = document.createDocumentFragment();
  for (const image of shown.slice(added, added + PAGE)) page.append(card(image));
  added = Math.min(added + PAGE, shown.length);
  $("cards").append(page);
}

function showCounts() {
  const verdicts = tally("verdict", (image) => image.state);
  for (const label of $("verdicts").querySelectorAll("label")) {
    label.querySelector(".count").textContent = (verdicts.get(label.dataset.value) || 0).toLocaleString("en");
  }
  for (const field of ["task", "split"]) {
    if (!$(field)) continue;
    const counts = tally(field, (image) => image.prompt[field]);
    for (const option of $(field).options) {
      const name = option.value ? readable(option.value) : `All ${field}s`;
      option.textContent = option.value ? `${name} (${(counts.get(option.value) || 0).toLocaleString("en")})` : name;
    }
  }
  const some = Object.values(filters).some(Boolean);
  const total = images.length.toLocaleString("en");
  $("status").textContent = some ? `${shown.length.toLocaleString("en")} of ${total}` : `${total} images`;
  $("reset").hidden = !some;
  $("nothing").hidden = shown.length > 0;
}

function apply() {
  shown = images.filter((image) => matches(image));
  added = 0;
  $("cards").replaceChildren();
  addPage();
  showCounts();
  watchEnd();
  // A reader deep in the gallery would be left below the end of a shorter one.
  if ($("filters").getBoundingClientRect().top <= 0) $("images").scrollIntoView();
}

const observer = new IntersectionObserver(
  (entries) => {
    if (!entries.some((entry) => entry.isIntersecting) || added >= shown.length) return;
    addPage();
    watchEnd();
  },
  { rootMargin: "1200px" },
);

// Observing anew reports at once, so that pages follow until the end lies well below the window.
function watchEnd() {
  observer.unobserve($("more"));
  observer.observe($("more"));
}

function segment(value, label) {
  const made = element("label", `segment ${value}`);
  made.dataset.value = value;
  const input = element("input");
  Object.assign(input, { type: "radio", name: "verdict", value, defaultChecked: value === "" });
  made.append(input, element("span", "name", label), element("span", "count"));
  return made;
}

function buildVerdicts() {
  const found = new Set(images.map((image) => image.state));
  const offered = found.has("scored") ? ["scored", "none"] : ["pass", "fail", "none"];
  const states = Object.keys(STATES).filter((state) => offered.includes(state) || found.has(state));
  $("verdicts").append(segment("", "All"), ...states.map((state) => segment(state, STATES[state])));
}

// The address remembers filters and the open image, so that a link shows a colleague the same.
function writeAddress(key) {
  const told = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  if (key) told.set("image", key);
  history.replaceState(null, "", `#${told.toString() || "images"}`);
}

function readAddress() {
  if (!location.hash.includes("=")) return null;
  const told = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(filters)) filters[name] = told.get(name) || "";
  for (const name of ["task", "split", "query"]) if ($(name)) $(name).value = filters[name];
  for (const input of $("verdicts").querySelectorAll("input")) input.checked = input.value === filters.verdict;
  return told.get("image");
}

function readControls() {
  filters.verdict = $("verdicts").querySelector("input:checked").value;
  filters.query = $("query").value.trim();
  for (const field of ["task", "split"]) filters[field] = $(field) ? $(field).value : "";
  apply();
  writeAddress();
}

function startGallery() {
  buildVerdicts();
  $("filters").addEventListener("input", readControls);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(readControls)); // after the browser's own reset
  window.addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    readAddress();
    apply();
    $("images").scrollIntoView();
  });
}
