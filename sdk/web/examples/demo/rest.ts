/** The parts of the REST API that the page uses: tokens of the demo app, recordings, played files. */

/** A problem reply (RFC 9457) of the API. */
export class RestError extends Error {
  /** @param code as in docs/errors.md */
  constructor(
    readonly code: string,
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** What GET /demo/token gives. */
export interface DemoToken {
  /** Access token. */
  token: string;
  /** App to which it belongs. */
  app: string;
}

/** A recording, as far as the page needs it. */
export interface RecordingInfo {
  /** Which. */
  id: string;
  /** queued, active, ending, complete, failed. */
  state: string;
  /** Why it failed. */
  error?: string;
  /** Files. */
  files: { name: string; content_type: string; size_bytes: number; duration_ms: number; url: string }[];
}

/** A played file, as far as the page needs it. */
export interface VodInfo {
  /** Which. */
  id: string;
  /** queued, playing, ended, failed. */
  state: string;
  /** Why it failed. */
  error?: string;
}

/** A token for a room of the demo app. */
export async function demoToken(room: string, identity: string, name: string): Promise<DemoToken> {
  const query = new URLSearchParams({ room, identity, name });
  return (await read(await fetch(`/demo/token?${query.toString()}`))) as DemoToken;
}

/** The API of one room. */
export class RoomApi {
  readonly #token: DemoToken;
  readonly #base: string;

  constructor(token: DemoToken, room: string) {
    this.#token = token;
    this.#base = `/v1/apps/${encodeURIComponent(token.app)}/rooms/${encodeURIComponent(room)}`;
  }

  /** Starts a mixed recording. */
  async startRecording(): Promise<RecordingInfo> {
    return (await this.#call('POST', `${this.#base}/recordings`, { mode: 'mixed' })) as RecordingInfo;
  }

  /** Ends it; the files are complete a moment later. */
  async stopRecording(id: string): Promise<void> {
    await this.#call('POST', `${this.#base}/recordings/${id}/stop`);
  }

  /** As it is now. */
  async recording(id: string): Promise<RecordingInfo> {
    return (await this.#call('GET', `${this.#base}/recordings/${id}`)) as RecordingInfo;
  }

  /** A file of a recording, as an address for a video element, which cannot send a header. */
  fileUrl(url: string): string {
    const absolute = new URL(url, location.href);
    absolute.searchParams.set('access_token', this.#token.token);
    return absolute.href;
  }

  /** Uploads a file and plays it into the room. */
  async playFile(file: File): Promise<VodInfo> {
    const media = `/v1/apps/${encodeURIComponent(this.#token.app)}/media/${encodeURIComponent(safeName(file.name))}`;
    const uploaded = await fetch(media, {
      method: 'PUT',
      headers: { ...this.#headers(), 'content-type': file.type || 'application/octet-stream' },
      body: file,
    });
    const { name } = (await read(uploaded)) as { name: string };
    return (await this.#call('POST', `${this.#base}/vods`, { media: name, name: file.name })) as VodInfo;
  }

  /** Ends a played file. */
  async stopVod(id: string): Promise<void> {
    await this.#call('POST', `${this.#base}/vods/${id}/stop`);
  }

  /** As it is now. */
  async vod(id: string): Promise<VodInfo> {
    return (await this.#call('GET', `${this.#base}/vods/${id}`)) as VodInfo;
  }

  async #call(method: string, path: string, body?: unknown): Promise<unknown> {
    const headers = { ...this.#headers(), ...(body === undefined ? {} : { 'content-type': 'application/json' }) };
    return read(await fetch(path, { method, headers, body: body === undefined ? null : JSON.stringify(body) }));
  }

  #headers(): Record<string, string> {
    return { authorization: `Bearer ${this.#token.token}` };
  }
}

/** Media names are plain; what the person's file is called is shown, not stored. */
function safeName(name: string): string {
  const plain = name.replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^[.-]+/, '');
  return plain.slice(-80) || 'file';
}

async function read(response: Response): Promise<unknown> {
  const body: unknown = await response.json().catch(() => undefined);
  if (response.ok) return body;
  const problem = (body ?? {}) as { code?: string; detail?: string; title?: string };
  const message = problem.detail ?? problem.title ?? `the server answered ${response.status}`;
  throw new RestError(problem.code ?? 'INTERNAL', message, response.status);
}
