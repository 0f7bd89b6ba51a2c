// The sampling parameters a conversation may set: their names on the page, their ranges, and what is sent for them.
// An empty field is left out of the request, so the server's default holds. It does not know elements.

export const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, hint: "0 takes the likeliest token" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01, hint: "likeliest tokens that make up this share" },
  { name: "top_k", label: "Top k", min: 0, max: 1000, step: 1, hint: "this many likeliest tokens; 0 is all" },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01, hint: "at least this share of the likeliest" },
  { name: "max_tokens", label: "Longest answer", min: 1, max: 131072, step: 1, hint: "tokens; empty is what fits" },
  { name: "seed", label: "Seed", min: 0, max: 2 ** 53 - 1, step: 1, hint: "the same seed gives the same answer" },
];

const escapes = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };

/** Stop texts of a field with one a line; \n and \t mean what they do elsewhere. */
export const stopTexts = (field) =>
  field
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replace(/\\[nt\\]/g, (found) => escapes[found]));

/** What is wrong with a number field's text, or "". */
export function numberFault({ label, min, max, step }, text) {
  if (text.trim() === "") return "";
  const value = Number(text);
  if (!Number.isFinite(value)) return `${label} must be a number.`;
  if (step === 1 && !Number.isInteger(value)) return `${label} must be a whole number.`;
  return value < min || value > max ? `${label} must be from ${min} to ${max}.` : "";
}

/** What is wrong with a field of JSON, or "". `kind` is "object" or "list". */
export function jsonFault(text, kind) {
  if (text.trim() === "") return "";
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return (kind === "list" ? Array.isArray(value) : isObject) ? "" : `This must be a JSON ${kind}.`;
}

/** Fields of the request's body for stored parameters. What is stored has been checked by the functions above. */
export function requestParameters(params) {
  const body = {};
  for (const { name } of FIELDS) if (typeof params[name] === "number") body[name] = params[name];
  const stop = stopTexts(params.stop ?? "");
  if (stop.length) body.stop = stop;
  if (params.schema?.trim()) {
    const schema = JSON.parse(params.schema);
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  if (params.tools?.trim()) body.tools = JSON.parse(params.tools);
  return body;
}
