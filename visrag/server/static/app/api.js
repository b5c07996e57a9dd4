/** The HTTP API, relative to the page's own address. Failures are thrown as Problem. */

/** An answer that is an error, in the words of its problem+json. */
class Problem extends Error {
  constructor(status, title, detail) {
    super(detail || title || `The server answered ${status}.`);
    this.status = status;
    this.title = title;
  }
}

let onUnauthorized = () => {};
/** Sets what happens when the server wants a key. */
const whenUnauthorized = (act) => {
  onUnauthorized = act;
};

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const detail = typeof body.detail === "string" ? body.detail : "";
  return new Problem(response.status, body.title || response.statusText, detail);
}

async function call(method, path, { json, signal, keepalive } = {}) {
  const options = { method, signal, keepalive, headers: { Accept: "application/json" } };
  if (json !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(json);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "No answer", "The server does not answer. Is it running?");
  }
  if (response.status === 401) onUnauthorized();
  if (!response.ok) throw await problemOf(response);
  return response;
}

const fetched = async (...request) => {
  const response = await call(...request);
  return response.status === 204 ? null : response.json();
};

const query = (parameters) => {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined) search.append(name, each);
    }
  }
  const text = search.toString();
  return text && `?${text}`;
};

/** A document's id in URLs: its name in UTF-8, as base64url without padding. */
function documentId(name) {
  const bytes = new TextEncoder().encode(name);
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

const at = (collection) => `v1/collections/${encodeURIComponent(collection)}`;
const pageAt = (collection, document, page) => `${at(collection)}/documents/${documentId(document)}/pages/${page}`;

/** Addresses for images, links and downloads. */
const urls = {
  image: (collection, document, page, side) => pageAt(collection, document, page) + `/image${query({ side })}`,
  crop: (collection, document, page, box) =>
    pageAt(collection, document, page) + `/crop${query({ box: box.join(",") })}`,
  /** `chosen`: {}, {word: its index} or {token: its text}. */
  highlighted: (collection, document, page, q, chosen) =>
    pageAt(collection, document, page) + `/heatmap.png${query({ q, ...chosen, side: 2000 })}`,
  original: (collection, document, page) =>
    `${at(collection)}/documents/${documentId(document)}/original${page ? `#page=${page}` : ""}`,
  verdicts: (collection, review, format) => `${at(collection)}/feedback/export${query({ review, format })}`,
  events: (collection) => `${at(collection)}/events`,
};

const api = {
  session: () => fetched("GET", "v1/session"),
  signIn: (key) => fetched("POST", "v1/session", { json: { key } }),
  signOut: () => fetched("DELETE", "v1/session"),

  search: (collection, asked, offset, k, signal) =>
    fetched("POST", `${at(collection)}/search`, {
      signal,
      json: {
        question: asked.q.toWellFormed(),
        k,
        offset,
        rank: asked.rank,
        documents: asked.document.length ? asked.document : null,
        tags: Object.fromEntries(asked.tag.map((tag) => [tag.split("=", 1)[0], tag.slice(tag.indexOf("=") + 1)])),
      },
    }),
  page: (collection, document, page, signal) => fetched("GET", pageAt(collection, document, page), { signal }),
  heatmap: (collection, document, page, q, signal) =>
    fetched("GET", `${pageAt(collection, document, page)}/heatmap${query({ q })}`, { signal }),
  account: (collection, document, page, asked, signal) =>
    fetched("GET", `${pageAt(collection, document, page)}/account${query(asked)}`, { signal }),

  documents: (collection, { limit, offset, state }, signal) =>
    fetched("GET", `${at(collection)}/documents${query({ limit, offset, state: state || null })}`, { signal }),
  document: (collection, document, signal) =>
    fetched("GET", `${at(collection)}/documents/${documentId(document)}`, { signal }),
  remove: (collection, document) => fetched("DELETE", `${at(collection)}/documents/${documentId(document)}`),
  retry: (collection, document) => fetched("POST", `${at(collection)}/documents/${documentId(document)}/retry`),

  feedback: (collection, { review, question }, signal) =>
    fetched("GET", `${at(collection)}/feedback${query({ review, question })}`, { signal }),
  judge: (collection, verdict) => fetched("POST", `${at(collection)}/feedback`, { json: verdict, keepalive: true }),
  exportPages: async (collection, question, pages) => {
    const response = await call("POST", `${at(collection)}/export`, { json: { question, pages } });
    return response.blob();
  },
};

/** A file's name as the server takes it: no control characters, no odd spaces, no backslash. */
const nameOf = (file) =>
  file.name
    .toWellFormed()
    .replace(/\p{Z}/gu, " ")
    .replace(/[\p{C}\\/]/gu, "_");

/**
 * Sends a file, telling `onProgress` the share sent. Resolves to the document, rejects with a Problem.
 * XMLHttpRequest, because fetch tells nothing while it sends.
 */
function upload(collection, file, tags, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("name", nameOf(file));
    if (Object.keys(tags).length) form.append("tags", JSON.stringify(tags));
    form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    request.open("POST", `${at(collection)}/documents`);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      const body = request.response ?? {};
      if (request.status === 401) onUnauthorized();
      if (request.status < 300) resolve(body);
      else reject(new Problem(request.status, body.title, typeof body.detail === "string" ? body.detail : ""));
    };
    request.onerror = () => reject(new Problem(0, "No answer", "The upload was cut off."));
    request.onabort = () => reject(new Problem(0, "Stopped", "The upload was stopped."));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** Hands a blob to the browser's downloads. */
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export { Problem, api, documentId, save, upload, urls, whenUnauthorized };
