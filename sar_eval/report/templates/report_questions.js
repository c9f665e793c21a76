// A prompt's question graph as a tree with the judge's answers: each question under its first parent,
// with a note on the other parents.

function note(text) {
  return element("p", "note", text);
}

function formatIds(ids) {
  const last = ids[ids.length - 1];
  return ids.length < 2 ? `question ${last}` : `questions ${ids.slice(0, -1).join(", ")} and ${last}`;
}

function isZeroed(question) {
  return question.yes && question.zeroed_by.length > 0;
}

// The mark shows how the question counts, the text beside it the answer.
function answerBadge(question) {
  const scored = question.counted ? "pass" : isZeroed(question) ? "zeroed" : "fail";
  const state = question.counted === null ? "none" : scored;
  return element("span", `badge ${state}`, question.answer || "no answer");
}

function questionItem(question, otherParents) {
  const item = element("li");
  const line = element("p", question.differs ? "question differs" : "question");
  const text = element("span", "text", `${question.id}. ${question.text}`);
  text.dir = "auto";
  line.append(text, answerBadge(question));
  if (question.soft !== null) line.append(element("span", "soft", `p(yes) ${formatScore(question.soft)}`));
  item.append(line);
  if (isZeroed(question)) {
    item.append(note(`Counts as no, because ${formatIds(question.zeroed_by)} ${question.zeroed_by.length > 1 ? "do" : "does"}.`));
  }
  if (otherParents.length) item.append(note(`Also depends on ${formatIds(otherParents)}.`));
  if (question.problem) item.append(note(question.problem));
  if (question.truncated) item.append(note("Truncated: longer than the judge's maximum input."));
  return item;
}

function questionTree(questions, parents) {
  const sorted = [...questions].sort((one, other) => one.id - other.id);
  const ids = new Set(sorted.map((question) => question.id));
  const parentsOf = (question) => (parents.get(question.id) || []).filter((id) => id !== question.id);
  const treeParent = new Map(sorted.map((question) => [question, parentsOf(question).find((id) => ids.has(id))]));
  const visited = new Set();

  function branch(question) {
    visited.add(question);
    const item = questionItem(question, parentsOf(question).filter((id) => id !== treeParent.get(question)));
    const children = element("ul");
    for (const child of sorted) {
      if (treeParent.get(child) === question.id && !visited.has(child)) children.append(branch(child));
    }
    if (children.childElementCount) item.append(children);
    return item;
  }

  const roots = sorted.filter((question) => treeParent.get(question) === undefined).map(branch);
  // A cycle has no root; its first question takes that role.
  for (const question of sorted) if (!visited.has(question)) roots.push(branch(question));
  return roots;
}

function countedText(questions) {
  const counted = questions.filter((question) => question.counted).length;
  const scored = questions.every((question) => question.counted !== null);
  return scored ? `${counted} of ${questions.length} count as yes` : "not scored";
}
