// Shows only the groups whose text holds every word typed.
const field = document.getElementById("filter");
const groups = [...document.querySelectorAll("details.group")].map((element) => ({
  element, text: element.textContent.toLowerCase(),
}));
const told = document.getElementById("told");
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { element, text } of groups) {
    element.hidden = !words.every((word) => text.includes(word));
    shown += !element.hidden;
  }
  told.textContent = `${shown} of ${groups.length} groups`;
});
