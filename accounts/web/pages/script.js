// Adds a button to each password field that shows what was typed, and lets forms use passkeys. The
// pages work without it.
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

// A form with data-passkey makes (create) or uses (get) a passkey by its data-options, and posts the
// browser's answer. With data-fill, the browser also offers passkeys where it fills in the user name.
const passkeys = window.PublicKeyCredential;
const outdated = 4.5 * 60 * 1000; // the challenge of the page is valid for 5 minutes

for (const form of passkeys?.parseRequestOptionsFromJSON ? document.querySelectorAll("form[data-passkey]") : []) {
  const { passkey, options, failed, exists, fill } = form.dataset;
  const message = form.querySelector("[role=alert]");
  let asking = new AbortController();

  const ask = async (mediation) => {
    asking.abort(); // only one can be asked for at a time
    asking = new AbortController();
    message.hidden = true;
    const read = passkey === "create" ? "parseCreationOptionsFromJSON" : "parseRequestOptionsFromJSON";
    try {
      const answer = await navigator.credentials[passkey]({
        publicKey: passkeys[read](JSON.parse(options)), signal: asking.signal, ...mediation,
      });
      form.elements.credential.value = JSON.stringify(answer);
      form.submit();
    } catch (error) {
      message.textContent = error.name === "InvalidStateError" && exists ? exists : failed;
      message.hidden = Boolean(mediation) || error.name === "AbortError";
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  form.hidden = false;
  for (const element of document.querySelectorAll("[data-without]")) element.hidden = true;
  if (fill === undefined) continue;
  passkeys.isConditionalMediationAvailable?.().then((can) => can && ask({ mediation: "conditional" }));
  document.addEventListener("visibilitychange", () => { // back in an old tab, before anything is typed
    const typed = [...document.querySelectorAll("#email, #password")].some((field) => field.value);
    if (!document.hidden && !typed && performance.now() > outdated) location.reload();
  });
}
