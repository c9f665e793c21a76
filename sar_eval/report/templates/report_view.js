// The large view: one image with its verdict, the judge's boxes over it, and its siblings.

let current = null;
let opening = -1; // the row asked for: a slower one that arrives later is not shown

function showBoxes(image, found) {
  const layers = { boxes: $("boxes"), masks: $("masks"), rows: $("box-rows") };
  const drawn = drawBoxes(image, found, layers, "hole");
  $("masks-label").hidden = drawn.masks === 0;
  $("view-boxes").hidden = drawn.boxes === 0;
}

function showImage(image) {
  $("frame").hidden = !image.src;
  $("view-missing").hidden = Boolean(image.src);
  $("view-missing").replaceChildren(...missingText(image));
  $("view-image").removeAttribute("src"); // or the last image stays while a large one loads
  if (!image.src) return;
  const [width, height] = image.size;
  $("frame").style.setProperty("--ratio", width / height);
  $("view-image").className = Math.max(width, height) < MIN_SMOOTH ? "pixelated" : "";
  $("view-image").alt = `Image for: ${image.prompt.text}`;
  $("view-image").src = image.full;
}

function missingText(image) {
  if (!image.leftOut) return [image.problem || "No image"];
  const command = element("code", "", `sar-eval report RUN --image ${image.key}`);
  return ["This picture is in the run folder, not beside this page. To have it here:", element("br"), command];
}

function showQuestions(questions, parents) {
  $("view-questions").hidden = questions.length === 0;
  $("questions-counted").textContent = countedText(questions);
  $("questions").replaceChildren(...questionTree(questions, parents));
}

function showDetails(image, details) {
  const lines = {
    key: image.key,
    seed: details.seed,
    task: readableName(image.prompt.task),
    split: image.prompt.split,
    score: image.score === null ? "" : formatScore(image.score),
    size: image.size ? `${image.size[0]} × ${image.size[1]}` : "",
    seconds: details.seconds ? details.seconds.toPrecision(3) : "",
    "tokens out of range": details.outOfRange || "",
  };
  $("details").replaceChildren(...detailLines(lines));
  $("view-scores").hidden = index.scorers.length === 0;
  $("view-score-lines").replaceChildren(...detailLines(scoreDetails(image.number)));
}

function sibling(image) {
  const item = element("li");
  const button = element("button", `sibling ${image.state}`);
  button.type = "button";
  button.title = STATES[image.state];
  button.setAttribute("aria-label", `Image ${image.index}: ${STATES[image.state]}`);
  if (image.number === current.number) button.setAttribute("aria-current", "true");
  button.append(imageFrame(image), badge(image));
  button.addEventListener("click", () => openView(image.number));
  item.append(button);
  return item;
}

function showSiblings(rows) {
  $("view-siblings").hidden = rows.length < 2;
  $("siblings-title").textContent =
    rows.length < index.imagesPerPrompt ? `${rows.length} of this prompt's ${formatCount(index.imagesPerPrompt)} images` : "All images of this prompt";
  $("siblings").replaceChildren(...rows.map((row) => sibling(readRow(row))));
}

function neighbour(step) {
  if (!inSuiteOrder()) {
    const next = positionOf(current.number) + step; // outside the filter: the first
    return next >= 0 && next < shown.length ? shown[next] : -1;
  }
  const position = firstAtLeast(step > 0 ? current.number + 1 : current.number) - (step > 0 ? 0 : 1);
  return position >= 0 && position < shown.length ? shown[position] : -1;
}

function showPosition() {
  const position = positionOf(current.number);
  const total = formatCount(shown.length);
  $("view-position").textContent = position < 0 ? "outside the filter" : `${formatCount(position + 1)} of ${total}`;
  $("previous").disabled = neighbour(-1) < 0;
  $("next").disabled = neighbour(1) < 0;
}

function openView(row) {
  opening = row;
  const siblings = siblingRows(row);
  withRows("rows", siblings, () =>
    withRows("details", [row], () => {
      // A slow file: the rows' files may be gone again.
      if (opening === row) withRows("rows", siblings, () => showView(readRow(row), readDetails(row), siblings));
    }),
  );
}

function showView(image, details, siblings) {
  current = image;
  const { boxes, questions, rest } = readEvidence(details.evidence);
  $("view-verdict").replaceChildren(badge(image));
  $("view-prompt").textContent = image.prompt.text;
  $("view-prompt").classList.toggle("long", image.prompt.text.length > 120);
  $("view-reason").replaceChildren(...reasons(image));
  $("evidence").textContent = rest;
  $("view-evidence").hidden = !rest;
  showImage(image);
  showBoxes(image, boxes);
  showQuestions(questions, readParents(details.checks));
  showDetails(image, details);
  showSiblings(siblings);
  showPosition();
  if (!$("view").open) {
    $("view").showModal();
    $("view").focus(); // not the first button: arrow keys would put a ring around it
  }
  writeAddress(image);
}

function step(direction) {
  const next = neighbour(direction);
  if (next >= 0) openView(next);
}

function onClose() {
  opening = -1;
  writeAddress();
  focusCard(positionOf(current.number), current.number);
}

function onKey(event) {
  if (!$("view").open || event.altKey || event.ctrlKey || event.metaKey) return;
  const actions = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    k: () => step(-1),
    j: () => step(1),
    b: () => $("show-boxes").click(),
    m: () => $("show-masks").click(),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function toggleLayers() {
  $("boxes").hidden = !$("show-boxes").checked;
  $("masks").toggleAttribute("hidden", !$("show-masks").checked);
}

startFiles(["index"], () => {
  index = readIndex();
  index.scorers = readScorers(index.scorers);
  startGallery();
  listenToView();
  showExtremes();
  const parameters = readAddress();
  applyFilters(() => openLinked(parameters, withRows, readRow));
});
