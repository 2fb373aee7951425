// The documents in a JSON file against the schemas of the Prometheus operator and of KEDA: check-custom.mjs FILE MODULES
// MODULES is the folder in which npm has put @kubernetes-models.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [file, modules] = process.argv.slice(2);
const from = (path) => import(`${pathToFileURL(modules)}/@kubernetes-models/${path}/index.js`);
const { ServiceMonitor } = await from("prometheus-operator/monitoring.coreos.com/v1");
const { ScaledObject } = await from("keda/keda.sh/v1alpha1");

const models = { ServiceMonitor, ScaledObject };
const seen = new Set();
for (const document of JSON.parse(readFileSync(file, "utf8"))) {
  new models[document.kind](document).validate();
  seen.add(document.kind);
}
for (const kind of Object.keys(models)) {
  if (!seen.has(kind)) throw new Error(`nothing of the kind ${kind}`);
}
