// Shows only the groups that hold every word typed; the heading above them counts as theirs.
const field = document.getElementById("filter");
const told = document.getElementById("told");
const parts = [...document.querySelectorAll(".part")].map((element) => ({
  element,
  groups: [...element.querySelectorAll(".group")].map((group) => ({
    group, text: (element.firstChild.textContent + " " + group.textContent).toLowerCase(),
  })),
}));
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0, all = 0;
  for (const { element, groups } of parts) {
    element.hidden = true;
    for (const { group, text } of groups) {
      group.hidden = !words.every((word) => text.includes(word));
      if (!group.hidden) { element.hidden = false; shown += 1; }
      all += 1;
    }
  }
  told.textContent = `${shown} of ${all} groups`;
});
