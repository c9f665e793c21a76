"use strict";
// The gallery: filters, cards, progressive rendering. Prompts, reasons and names are untrusted text:
// they are inserted through textContent and attributes only, never as markup.

const PAGE_SIZE = 60; // cards rendered at once; more follow as the reader scrolls
const MIN_SMOOTH = 128; // pixels; smaller images are enlarged without smoothing
const STATES = { pass: "Pass", fail: "Fail", scored: "Scored", none: "No verdict" };

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const images = data.images.map((image, number) => {
  const prompt = data.prompts[image.prompt];
  return { ...image, number, prompt, key: `${prompt.id}/${image.index}`, text: prompt.text.toLowerCase() };
});
const filters = { verdict: "", task: "", split: "", query: "" };
let shown = images;
let rendered = 0; // of the shown images

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = text;
  return node;
}

function formatScore(value) {
  return value === null || value === undefined ? "–" : value.toFixed(value > 1 ? 2 : 3);
}

function badge(image) {
  const label = image.state === "scored" ? formatScore(image.score) : STATES[image.state];
  return element("span", `badge ${image.state}`, label);
}

function readableName(name) {
  return name.replaceAll("_", " ");
}

function cardReason(image) {
  return image.reason || (image.state === "none" ? image.problem || "" : "");
}

// `ignored` names a filter to leave out: the counts beside a filter's choices are of what each would show.
function matches(image, ignored) {
  return (
    (ignored === "verdict" || !filters.verdict || image.state === filters.verdict) &&
    (ignored === "task" || !filters.task || image.prompt.task === filters.task) &&
    (ignored === "split" || !filters.split || image.prompt.split === filters.split) &&
    (!filters.query || image.text.includes(filters.query.toLowerCase()))
  );
}

function countBy(field, read) {
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
  const img = element("img", Math.max(...image.size) < MIN_SMOOTH ? "pixelated" : "");
  img.loading = "lazy";
  img.decoding = "async";
  img.alt = "";
  [img.width, img.height] = image.size;
  img.src = size === "full" ? image.full || image.src : image.src;
  frame.append(img);
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
  if (cardReason(image)) button.append(element("span", "reason", cardReason(image)));
  item.append(button);
  return item;
}

function addPage() {
  const page = document.createDocumentFragment();
  for (const image of shown.slice(rendered, rendered + PAGE_SIZE)) page.append(card(image));
  rendered = Math.min(rendered + PAGE_SIZE, shown.length);
  $("cards").append(page);
}

function showCounts() {
  const verdicts = countBy("verdict", (image) => image.state);
  for (const label of $("verdicts").querySelectorAll("label")) {
    label.querySelector(".count").textContent = (verdicts.get(label.dataset.value) || 0).toLocaleString("en");
  }
  for (const field of ["task", "split"]) {
    if (!$(field)) continue;
    const counts = countBy(field, (image) => image.prompt[field]);
    for (const option of $(field).options) {
      const name = option.value ? readableName(option.value) : `All ${field}s`;
      option.textContent = option.value ? `${name} (${(counts.get(option.value) || 0).toLocaleString("en")})` : name;
    }
  }
  const filtered = Object.values(filters).some(Boolean);
  const total = images.length.toLocaleString("en");
  $("status").textContent = filtered ? `${shown.length.toLocaleString("en")} of ${total}` : `${total} images`;
  $("reset").hidden = !filtered;
  $("no-matches").hidden = shown.length > 0;
}

function applyFilters() {
  shown = images.filter((image) => matches(image));
  rendered = 0;
  $("cards").replaceChildren();
  addPage();
  showCounts();
  observeEnd();
  // Otherwise the window could be left below the end of a gallery that got shorter.
  if ($("filters").getBoundingClientRect().top <= 0) $("images").scrollIntoView();
}

const observer = new IntersectionObserver(
  (entries) => {
    if (!entries.some((entry) => entry.isIntersecting) || rendered >= shown.length) return;
    addPage();
    observeEnd();
  },
  { rootMargin: "1200px" },
);

// Observing again calls back at once, so pages are added until the end is well below the window.
function observeEnd() {
  observer.unobserve($("end-of-cards"));
  observer.observe($("end-of-cards"));
}

function segment(value, name) {
  const label = element("label", `segment ${value}`);
  label.dataset.value = value;
  const input = element("input");
  Object.assign(input, { type: "radio", name: "verdict", value, defaultChecked: value === "" });
  label.append(input, element("span", "name", name), element("span", "count"));
  return label;
}

function buildVerdicts() {
  const present = new Set(images.map((image) => image.state));
  const offered = present.has("scored") ? ["scored", "none"] : ["pass", "fail", "none"];
  const states = Object.keys(STATES).filter((state) => offered.includes(state) || present.has(state));
  $("verdicts").append(segment("", "All"), ...states.map((state) => segment(state, STATES[state])));
}

// The URL's fragment has the filters and the open image, so that a link shows the same view.
function writeAddress(key) {
  const parameters = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  if (key) parameters.set("image", key);
  history.replaceState(null, "", `#${parameters.toString() || "images"}`);
}

function readAddress() {
  if (!location.hash.includes("=")) return null;
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(filters)) filters[name] = parameters.get(name) || "";
  for (const name of ["task", "split", "query"]) if ($(name)) $(name).value = filters[name];
  for (const input of $("verdicts").querySelectorAll("input")) input.checked = input.value === filters.verdict;
  return parameters.get("image");
}

function readControls() {
  filters.verdict = $("verdicts").querySelector("input:checked").value;
  filters.query = $("query").value.trim();
  for (const field of ["task", "split"]) filters[field] = $(field) ? $(field).value : "";
  applyFilters();
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
    applyFilters();
    $("images").scrollIntoView();
  });
}
