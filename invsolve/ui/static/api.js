// Requests to the page's own server. All addresses are relative, so that each carries the token.

export class Refused extends Error {
  constructor(what, hint) {
    super(what);
    this.hint = hint || "";
  }
}

async function answer(response) {
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(found.error || `the server answered ${response.status}`, found.hint);
  return found;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused("the server does not answer", "is invsolve ui still running?");
  }
  return answer(response);
}

export const start = () => ask("api/start");
export const jobs = () => ask("api/jobs");
export const cancel = (id) => ask(`api/jobs/${id}`, { method: "DELETE" });

export const limits = { bytes: Infinity };

export async function upload(blob, name, kind, like = "") {
  if (blob.size > limits.bytes) {
    // a server that refuses before it has read everything is not heard by every browser
    const most = Math.floor(limits.bytes / 2 ** 20);
    throw new Refused(`${name} is larger than ${most} MiB`, "use the command on it: it has no such limit");
  }
  const query = new URLSearchParams({ name, kind, like });
  const headers = { "Content-Type": "application/octet-stream" };
  return ask(`api/uploads?${query}`, { method: "POST", body: blob, headers });
}

export function run(job) {
  const headers = { "Content-Type": "application/json" };
  return ask("api/jobs", { method: "POST", body: JSON.stringify(job), headers });
}

export const viewOf = (upload) => `api/uploads/${upload}/view`;
export const previewOf = (job) => `api/jobs/${job.id}/preview?${job.preview}`;
export const fileOf = (job, name) => `api/jobs/${job.id}/files/${encodeURIComponent(name)}`;
export const zipOf = (job) => `api/jobs/${job.id}/zip`;

// Calls `changed(job)` at every change, until the job has ended.
export function follow(id, changed, lost) {
  const events = new EventSource(`api/jobs/${id}/events`);
  events.onmessage = (event) => {
    const job = JSON.parse(event.data);
    if (["done", "failed", "cancelled"].includes(job.state)) events.close();
    changed(job);
  };
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) return;
    lost();
  };
  return events;
}
