// Adds a button to each password field that shows what was typed. The pages work without it.
"use strict";

const texts = document.body.dataset;

for (const field of document.querySelectorAll("input[type=password]")) {
  const button = document.createElement("button");
  const show = (shown) => {
    field.type = shown ? "text" : "password";
    button.textContent = shown ? texts.hide : texts.show;
    button.setAttribute("aria-label", button.textContent + ": " + field.labels[0].textContent);
  };
  button.type = "button";
  button.className = "quiet";
  button.addEventListener("click", () => show(field.type === "password"));
  field.form.addEventListener("submit", () => show(false)); // browsers remember the values of text fields

  const row = document.createElement("div");
  row.className = "reveal";
  field.replaceWith(row);
  row.append(field, button);
  show(false);
}
