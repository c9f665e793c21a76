"use strict";
// One measure at a time, and what the point under the pointer or the focus says.
const chooser = document.getElementById("measure");
const panels = [...document.querySelectorAll("[data-measure]")];

function showMeasure() {
  for (const panel of panels) panel.hidden = panel.dataset.measure !== chooser.value;
  for (const empty of document.querySelectorAll("[data-benchmark]")) {
    const own = [...empty.parentElement.querySelectorAll("[data-measure]")];
    empty.hidden = own.some((panel) => !panel.hidden);
  }
}

function readOut(event) {
  const mark = event.target.closest?.(".mark");
  if (!mark) return;
  const line = mark.closest("figure").querySelector(".readout");
  line.textContent = mark.getAttribute("aria-label");
  line.classList.add("live");
}

// Of each plot one point is a tab stop; arrows move to the others.
function moveFocus(event) {
  const mark = event.target.closest?.(".mark");
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!mark || !by) return;
  const marks = [...mark.closest("svg").querySelectorAll(".mark")];
  const next = marks[marks.indexOf(mark) + by];
  if (!next) return;
  event.preventDefault();
  mark.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

for (const plot of document.querySelectorAll(".plot .scroll svg")) {
  const first = plot.querySelector(".mark");
  if (first) first.tabIndex = 0;
}
chooser.addEventListener("change", showMeasure);
document.addEventListener("mouseover", readOut);
document.addEventListener("focusin", readOut);
document.addEventListener("keydown", moveFocus);
showMeasure();
