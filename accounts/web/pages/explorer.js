// Lists the operations of the site's OpenAPI document, and calls them with the token that was entered. The
// token is only kept as long as the page is open, and cookies are not sent. It makes no request to another
// host.
const page = document.querySelector("[data-document]");
const say = page.dataset;
const origin = new URL(say.document, location.href);
const token = document.getElementById("token");

const make = (name, properties, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

// sample returns an example of a schema, in which what is optional is left out.
const sample = (schema) => {
  if (schema.oneOf) return sample(schema.oneOf[0]);
  switch (Array.isArray(schema.type) ? schema.type[0] : schema.type) {
    case "object": {
      const names = schema.required ?? Object.keys(schema.properties ?? {});
      return Object.fromEntries(names.map((name) => [name, sample(schema.properties?.[name] ?? {})]));
    }
    case "array": return schema.items ? [sample(schema.items)] : [];
    case "integer": case "number": return 0;
    case "boolean": return false;
  }
  return schema.format === "email" ? "alice@example.com" : "";
};

const field = (label, control) => make("label", {}, label, control);

// called sends the request of a form, and shows the answer.
const called = async (method, base, path, form, parameters, type, answer) => {
  for (const { name, control, where } of parameters) {
    const value = encodeURIComponent(control.value);
    if (where === "path") path = path.replace(`{${name}}`, value);
    else if (value) path += `${path.includes("?") ? "&" : "?"}${name}=${value}`;
  }
  const headers = { Accept: "application/json" };
  const { body, basic } = form.elements;
  if (basic?.value) {
    headers.Authorization = `Basic ${btoa(basic.value.split(":").map(encodeURIComponent).join(":"))}`;
  } else if (token.value.trim() && form.dataset.open === undefined) {
    headers.Authorization = `Bearer ${token.value.trim().replace(/^Bearer\s+/i, "")}`;
  }
  let sent;
  if (body?.value.trim()) {
    headers["Content-Type"] = type;
    sent = type === "application/json" ? body.value : new URLSearchParams(JSON.parse(body.value)).toString();
  }
  const got = await fetch(base + path, { method, headers, body: sent, credentials: "omit", redirect: "manual" });
  let text = await got.text();
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {} // not JSON
  answer.textContent = `${got.status} ${got.statusText}\n${text}`;
};

const operation = (base, path, method, described, common) => {
  const form = make("form", {});
  if (!described.security?.some((one) => one.bearer)) form.dataset.open = "";
  const parameters = [...common, ...(described.parameters ?? [])].map((one) => {
    const control = make("input", { name: `parameter ${one.name}`, required: one.required ?? false });
    form.append(field(one.name, control));
    return { name: one.name, where: one.in, control };
  });
  if (described.security?.some((one) => one.client)) {
    form.append(field(say.client, make("input", { name: "basic", placeholder: "client_id:client_secret" })));
  }
  const [type, content] = Object.entries(described.requestBody?.content ?? {})[0] ?? [];
  if (content) {
    const text = JSON.stringify(sample(content.schema), null, 2);
    form.append(field(say.body, make("textarea", { name: "body", rows: text.split("\n").length + 1, value: text })));
  }
  const answer = make("pre", { tabIndex: 0, ariaLive: "polite" });
  form.append(make("button", {}, say.send), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.textContent = "…";
    try {
      await called(method.toUpperCase(), base, path, form, parameters, type, answer);
    } catch (error) {
      answer.textContent = `${say.failed} ${error.message}`;
    }
  });
  const locked = form.dataset.open === undefined ? ` ${say.locked}` : "";
  return make("details", {}, make(
    "summary", {}, make("strong", {}, method.toUpperCase()), " ", make("code", {}, base + path),
    ` ${described.summary ?? ""}${locked}`,
  ), form);
};

const show = async () => {
  const got = await fetch(origin, { credentials: "omit" });
  if (!got.ok) throw new Error(`${got.status} ${got.statusText}`);
  const described = await got.json();
  const base = described.servers?.[0]?.url ?? "";
  for (const path of Object.keys(described.paths).sort()) {
    const { parameters = [], ...methods } = described.paths[path];
    for (const [method, one] of Object.entries(methods)) page.append(operation(base, path, method, one, parameters));
  }
};

document.getElementById("authorize").addEventListener("submit", (event) => {
  event.preventDefault();
  document.getElementById("authorized").hidden = !token.value.trim();
});
document.getElementById("explorer").hidden = false;
show().catch((error) => page.append(make("p", { className: "error" }, `${say.failed} ${error.message}`)));
