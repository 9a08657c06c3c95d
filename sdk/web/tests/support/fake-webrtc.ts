/** Just enough of WebRTC for the SDK to run in Node: m-lines, senders, receivers and states, no media. */

let lastTrack = 0;

/** A MediaStreamTrack. */
export class FakeTrack {
  readonly id = `media-${++lastTrack}`;
  enabled = true;
  contentHint = '';
  readyState: 'live' | 'ended' = 'live';
  onended: (() => void) | null = null;

  constructor(
    readonly kind: 'audio' | 'video',
    readonly settings: MediaTrackSettings = { width: 1280, height: 720 },
  ) {}

  getSettings(): MediaTrackSettings {
    return this.settings;
  }

  stop(): void {
    this.readyState = 'ended';
  }
}

/** As the SDK takes it. */
export const fakeMedia = (kind: 'audio' | 'video', settings?: MediaTrackSettings): MediaStreamTrack =>
  new FakeTrack(kind, settings) as unknown as MediaStreamTrack;

/** An RTCRtpTransceiver. */
export class FakeTransceiver {
  mid: string | null = null;
  currentDirection: string | null = null;
  codecs: string[] = [];
  readonly receiver: { track: FakeTrack };
  readonly sender: { track: FakeTrack | null; encodings: RTCRtpEncodingParameters[] } & Record<string, unknown>;

  constructor(
    readonly kind: 'audio' | 'video',
    readonly direction: string,
    encodings: RTCRtpEncodingParameters[],
  ) {
    this.receiver = { track: new FakeTrack(kind) };
    const sender = { track: null as FakeTrack | null, encodings: structuredClone(encodings) };
    this.sender = {
      ...sender,
      getParameters: () => ({ encodings: structuredClone(this.sender.encodings) }),
      setParameters: (parameters: RTCRtpSendParameters) => {
        this.sender.encodings = parameters.encodings;
        return Promise.resolve();
      },
      replaceTrack: (track: FakeTrack | null) => {
        this.sender.track = track;
        return Promise.resolve();
      },
    };
  }

  setCodecPreferences(codecs: { mimeType: string }[]): void {
    this.codecs = codecs.map(({ mimeType }) => mimeType);
  }
}

/** A data channel that keeps what is sent. */
export class FakeDataChannel extends EventTarget {
  readyState: RTCDataChannelState = 'connecting';
  binaryType = 'blob';
  bufferedAmount = 0;
  bufferedAmountLowThreshold = 0;
  readonly protocol: string;
  readonly maxRetransmits: number | null;
  readonly maxPacketLifeTime = null;
  readonly sent: Uint8Array[] = [];

  constructor(
    readonly label: string,
    init: RTCDataChannelInit = {},
  ) {
    super();
    this.protocol = init.protocol ?? '';
    this.maxRetransmits = init.maxRetransmits ?? null;
  }

  send(message: Uint8Array): void {
    this.sent.push(message);
  }

  /** Changes the state and tells. */
  become(state: 'open' | 'closed'): void {
    this.readyState = state;
    this.dispatchEvent(new Event(state === 'open' ? 'open' : 'close'));
  }

  /** A message of the server. */
  say(data: ArrayBuffer | string): void {
    this.dispatchEvent(new MessageEvent('message', { data }));
  }
}

/** An RTCPeerConnection. */
export class FakePeerConnection extends EventTarget {
  /** All that were made, the newest last. */
  static readonly all: FakePeerConnection[] = [];
  readonly transceivers: FakeTransceiver[] = [];
  readonly channels: FakeDataChannel[] = [];
  readonly answers: string[] = [];
  connectionState: RTCPeerConnectionState = 'new';
  signalingState = 'stable';
  localDescription: { sdp: string } | null = null;
  onconnectionstatechange: (() => void) | null = null;
  /** Thrown by the next setRemoteDescription. */
  refusal: Error | undefined;
  /** What setRemoteDescription waits for. */
  onAnswer: () => Promise<void> = () => Promise.resolve();

  setConfiguration(configuration: RTCConfiguration): void {
    this.configuration = configuration;
  }

  constructor(public configuration: RTCConfiguration) {
    super();
    FakePeerConnection.all.push(this);
  }

  addTransceiver(kind: 'audio' | 'video', init: RTCRtpTransceiverInit): FakeTransceiver {
    const made = new FakeTransceiver(kind, init.direction ?? 'sendrecv', init.sendEncodings ?? [{}]);
    this.transceivers.push(made);
    return made;
  }

  createDataChannel(label: string, init?: RTCDataChannelInit): FakeDataChannel {
    const made = new FakeDataChannel(label, init);
    this.channels.push(made);
    return made;
  }

  /** The server opens a channel. */
  offerChannel(channel: FakeDataChannel): void {
    this.dispatchEvent(Object.assign(new Event('datachannel'), { channel }));
  }

  createOffer(options: RTCOfferOptions = {}): Promise<{ type: string; sdp: string }> {
    return Promise.resolve({ type: 'offer', sdp: `offer${options.iceRestart ? ' restart' : ''}` });
  }

  setLocalDescription(description: { type: string; sdp?: string }): Promise<void> {
    if (description.type === 'rollback') {
      this.signalingState = 'stable';
      return Promise.resolve();
    }
    this.signalingState = 'have-local-offer';
    this.localDescription = { sdp: description.sdp ?? '' };
    this.transceivers.forEach((transceiver, index) => (transceiver.mid = String(index)));
    return Promise.resolve();
  }

  async setRemoteDescription({ sdp }: { sdp: string }): Promise<void> {
    if (this.refusal) throw this.refusal;
    await this.onAnswer();
    this.signalingState = 'stable';
    this.answers.push(sdp);
    for (const transceiver of this.transceivers) transceiver.currentDirection = transceiver.direction;
  }

  getStats(): Promise<Map<string, unknown>> {
    return Promise.resolve(new Map<string, unknown>());
  }

  close(): void {
    this.connectionState = 'closed';
    this.signalingState = 'closed';
  }

  /** Changes the state as the network would. */
  become(state: RTCPeerConnectionState): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }

  /** The send m-line with this mid. */
  line(mid: string): FakeTransceiver {
    const found = this.transceivers.find((transceiver) => transceiver.mid === mid);
    if (!found) throw new Error(`no m-line ${mid}`);
    return found;
  }
}

const codec = (mimeType: string, sdpFmtpLine?: string): object => ({ mimeType, clockRate: 90_000, sdpFmtpLine });

const CAPABILITIES = {
  audio: [codec('audio/opus'), codec('audio/red'), codec('audio/G722'), codec('audio/PCMU'), codec('audio/CN')],
  video: [
    codec('video/VP8'),
    codec('video/rtx'),
    codec('video/H264', 'packetization-mode=0;profile-level-id=42e01f'),
    codec('video/H264', 'packetization-mode=1;profile-level-id=42e01f'),
    codec('video/VP9', 'profile-id=0'),
    codec('video/VP9', 'profile-id=2'),
    codec('video/red'),
    codec('video/ulpfec'),
  ],
};

/** Puts the fakes where the SDK looks for the browser's. */
export function installFakeWebRtc(): void {
  FakePeerConnection.all.length = 0;
  const rtp = { getCapabilities: (kind: 'audio' | 'video') => ({ codecs: CAPABILITIES[kind] }) };
  const target = new EventTarget();
  Object.assign(globalThis, {
    RTCPeerConnection: FakePeerConnection,
    RTCRtpSender: rtp,
    RTCRtpReceiver: rtp,
    addEventListener: target.addEventListener.bind(target),
  });
}
