// Shows the OpenAPI document. A login with "Try it out" authorizes all other calls.
"use strict";

// The address of the API. A proxy may publish it below a path of its own.
const ROOT = new URL("..", document.currentScript.src);
const LOGIN = new Set(["login/", "auth/refresh/"].map((path) => new URL(path, ROOT).pathname));
let ui;

/** Moves the examples of optional parameters to their descriptions: Swagger UI would send them with every call. */
function showExamples(description) {
  const operations = Object.values(description.paths).flatMap(Object.values);
  const parameters = [...operations.flatMap((each) => each.parameters), ...Object.values(description.components.parameters)];
  for (const parameter of parameters) {
    const example = parameter.example ?? parameter.examples?.example.value;
    if (example !== undefined && !parameter.required) {
      parameter.description += ` For example, \`${example}\`.`;
      delete parameter.example;
      delete parameter.examples;
    }
  }
  return description;
}

function authorizeAfterLogin(response) {
  if (response.ok && LOGIN.has(new URL(response.url).pathname)) {
    ui.preauthorizeApiKey("bearer", JSON.parse(response.text).access);
  }
  return response;
}

async function start() {
  const response = await fetch(new URL("openapi.json", ROOT));
  const url = ROOT.href.replace(/\/$/, "");
  const description = { ...(await response.json()), servers: [{ url }] };
  description.info.description = description.info.description.replace(/^URL=\S+/m, () => `URL=${url}`);
  ui = SwaggerUIBundle({
    spec: showExamples(description),
    dom_id: "#api",
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    tryItOutEnabled: true,
    validatorUrl: null,
    responseInterceptor: authorizeAfterLogin,
  });
}

start();
