/** A room as this client sees it: the entry of the SDK. */

import { create } from '@bufbuild/protobuf';
import { MAX_MESSAGE_BYTES, ROOM_DEFAULTS } from './defaults';
import { E2ee } from './e2ee/e2ee';
import { Emitter } from './emitter';
import { ConnectionError, EncryptionError, MrtcError, NegotiationError, StateError, errorFromServer } from './errors';
import type { ConnectionState, RoomEvents, Speaker } from './events';
import { ParticipantSchema } from './gen/mrtc/common/v1/common_pb';
import type {
  JoinResponse,
  MessageReceived,
  ParticipantsChanged,
  RecordingChanged,
  ResumeResponse,
} from './gen/mrtc/signaling/v1/client_pb';
import { LocalParticipant } from './local-participant';
import { logger } from './logger';
import type { ConnectOptions, DataOptions, ResolvedRoomOptions, RoomOptions } from './options';
import type { Participant, RemoteParticipant } from './participant';
import { Roster } from './roster';
import type { Place } from './roster';
import { sleep } from './signal/backoff';
import type { ServerBody } from './signal/frames';
import { SignalClient } from './signal/signal-client';
import { summarize } from './stats';
import type { RoomStats, StatsReport } from './stats';
import { AdaptiveStreams } from './tracks/adaptive-stream';
import type { DataMessage } from './transport/data-channels';
import { MediaSession } from './transport/media-session';
import { PlayoutDelays } from './transport/playout-delay';
import { WishCollector } from './wishes';
import type { Reason } from './words';
import { reasonFromWire } from './words';

/** What lives from a join to its end. */
interface Session {
  signal: SignalClient;
  media: MediaSession;
}

/** A room. Can be connected again after it was disconnected. */
export class Room extends Emitter<RoomEvents> {
  /** This client. Its id and identity are known after `connect`. */
  readonly localParticipant: LocalParticipant;
  /** Keys of end-to-end encryption; undefined without the option `e2ee`. */
  readonly e2ee: E2ee<Place> | undefined;
  readonly #options: ResolvedRoomOptions;
  readonly #roster: Roster;
  readonly #wishes: WishCollector;
  readonly #recordings = new Set<string>();
  #session: Session | undefined;
  #state: ConnectionState = 'disconnected';
  #name = '';
  #speakers: Speaker[] = [];
  #statsTimer: ReturnType<typeof setInterval> | undefined;
  #lastReport: StatsReport | undefined;
  #unlisten: () => void = () => undefined;

  constructor(options: RoomOptions = {}) {
    super();
    const capture = { ...ROOM_DEFAULTS.capture, ...options.capture };
    this.#options = { ...ROOM_DEFAULTS, ...options, capture };
    this.e2ee = options.e2ee && new E2ee<Place>(options.e2ee, {
      failed: (error, { track, participant }) => this.emit('encryptionError', error, track, participant),
      restored: ({ track, participant }) => this.emit('encryptionRestored', track, participant),
    });
    this.#wishes = new WishCollector(async (wishes) => {
      const { slots } = await this.#live().signal.request({ case: 'subscribe', value: { wishes } }, 'subscribe');
      this.#roster.applySlots(slots);
    });
    this.#roster = new Roster(
      this,
      {
        wish: (trackId, wish) => this.#wishes.add(trackId, wish),
        setSubscribed: (trackId, isSubscribed) => this.#setSubscribed(trackId, isSubscribed),
      },
      {
        of: (mid) => this.#session?.media.transport.trackOfSlot(mid),
        isFormer: (media) => this.#session?.media.former?.receives(media) ?? false,
        hasBegun: (mid) => this.#session?.media.transport.isPlaying(mid) ?? false,
        isInRepair: () => this.#session?.media.isInRepair ?? false,
      },
      (placeByMid) => this.#assignSlots(placeByMid),
    );
    this.localParticipant = new LocalParticipant(create(ParticipantSchema), {
      options: this.#options,
      isEncrypted: this.e2ee !== undefined,
      request: (body, reply) => this.#live().signal.request(body, reply),
      transport: () => this.#live().media.transport,
      exclusively: (task) => this.#live().media.exclusively(task),
      published: (publication) => this.emit('localPublished', publication),
      unpublished: (publication) => this.emit('localUnpublished', publication),
      muteChanged: (track) => this.emit(track.isMuted ? 'trackMuted' : 'trackUnmuted', track, this.localParticipant),
    });
  }

  /** Makes a room and connects it; see `connect`. */
  static async connect(
    url: string | readonly string[],
    token: string,
    options: RoomOptions & ConnectOptions = {},
  ): Promise<Room> {
    const room = new Room(options);
    await room.connect(url, token, options);
    return room;
  }

  /** Name of the room; empty before `connect`. */
  get name(): string {
    return this.#name;
  }

  /** See `ConnectionState`. */
  get state(): ConnectionState {
    return this.#state;
  }

  /** All others by participant id; of those who only listen in a large room, only some (`unlistedCount`). */
  get remoteParticipants(): ReadonlyMap<string, RemoteParticipant> {
    return this.#roster.participants;
  }

  /** How many others are in the room and not in `remoteParticipants`: in large rooms, of those who only listen. */
  get unlistedCount(): number {
    return this.#roster.unlistedCount;
  }

  /** Who speaks, loudest first. */
  get activeSpeakers(): readonly Speaker[] {
    return this.#speakers;
  }

  /** Ids of the recordings under way. */
  get recordings(): ReadonlySet<string> {
    return this.#recordings;
  }

  /** Round trip of the signaling connection in milliseconds; 0 before the first heartbeat. */
  get signalRttMs(): number {
    return this.#session?.signal.rttMs ?? 0;
  }

  /**
   * Joins a room. Resolves when the client is in it: `remoteParticipants` is filled, media is on its way. The offer is
   * made while the connection opens, so a join takes one round trip after that.
   *
   * @param url base URL of a signaling instance (http, https, ws or wss), or several: each attempt takes the next
   * @param token access token
   * @throws AuthError for a wrong or expired token, ServerError for other refusals, ConnectionError, NegotiationError
   */
  async connect(url: string | readonly string[], token: string, options: ConnectOptions = {}): Promise<void> {
    if (this.#state !== 'disconnected') throw new StateError(`the room is ${this.#state}`);
    const urls = typeof url === 'string' ? [url] : url;
    this.#setState('connecting');
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#connectOnce([...urls.slice(attempt - 1), ...urls.slice(0, attempt - 1)], token, options);
        return;
      } catch (error) {
        const retryAfterMs = error instanceof MrtcError ? error.retryAfterMs : undefined;
        this.#dropSession();
        const isLast = retryAfterMs === undefined || attempt >= this.#options.maxConnectAttempts;
        if (!isLast) {
          logger.info(`the join is repeated in ${retryAfterMs} ms: ${String(error)}`);
          await sleep(retryAfterMs);
        }
        // The cast: `disconnect` may have been called during the wait, which the compiler cannot see.
        if (isLast || (this.#state as ConnectionState) !== 'connecting') {
          this.#setState('disconnected');
          throw error;
        }
      }
    }
  }

  /** Leaves the room. Resolves when the server knows, or cannot be reached. */
  async disconnect(): Promise<void> {
    const session = this.#session;
    const wasConnected = this.#state === 'connected' || this.#state === 'reconnecting';
    if (!session || !wasConnected) {
      this.#dropSession();
      this.#setState('disconnected');
      return;
    }
    session.media.close();
    await session.signal.leave();
    this.#finish('client_request', undefined);
  }

  /**
   * Sends a text message to everybody else, or to certain identities. Resolves when it is stored and will be delivered.
   *
   * @param payload text, or bytes; at most 64 KiB
   * @returns its place in the room's order
   * @throws MrtcError TOO_LARGE, ServerError, ConnectionError
   */
  async sendMessage(payload: string | Uint8Array, options: { topic?: string; to?: string[] } = {}): Promise<number> {
    const bytes = typeof payload === 'string' ? new TextEncoder().encode(payload) : Uint8Array.from(payload);
    if (bytes.length > MAX_MESSAGE_BYTES) {
      throw new MrtcError('TOO_LARGE', `a message has at most ${MAX_MESSAGE_BYTES} bytes, not ${bytes.length}`);
    }
    const value = { payload: bytes, topic: options.topic ?? '', to: options.to ?? [] };
    const { messageSeq } = await this.#live().signal.request({ case: 'sendMessage', value }, 'sendMessage');
    return Number(messageSeq);
  }

  /**
   * Sends a message on a data channel to everybody else whose media connection is up, or to certain identities. Resolves
   * when it is on its way; nobody says whether it arrived. Much quicker than `sendMessage` and stored nowhere.
   *
   * @throws MrtcError BAD_ARGUMENT, TOO_LARGE; StateError without the option `dataChannels`; ConnectionError
   */
  async publishData(payload: string | Uint8Array, options: DataOptions = {}): Promise<void> {
    const send = { topic: options.topic ?? 'data', isReliable: options.reliable ?? true, to: options.to ?? [] };
    for (;;) {
      const { transport } = this.#live().media;
      if (!transport.data) throw new StateError('data channels are switched off (option `dataChannels`)');
      try {
        await transport.data.publish(payload, send);
        return;
      } catch (error) {
        // Channels do not outlive their transport: the new one opens its own.
        const isReplaced = this.#session !== undefined && this.#session.media.transport !== transport;
        if (!(error instanceof ConnectionError) || !isReplaced) throw error;
      }
    }
  }

  /** Plays the sound that the browser held back; call it in a click handler. */
  async startAudio(): Promise<void> {
    const tracks = [...this.remoteParticipants.values()].flatMap((participant) => participant.tracks);
    await Promise.all(tracks.map((track) => track.play()));
  }

  /** Figures since the call before (or since `statsUpdated`). */
  async getStats(): Promise<RoomStats> {
    const report = await this.#live().media.transport.getStats();
    const stats = summarize(report, this.#lastReport);
    this.#lastReport = report;
    for (const track of stats.tracks) track.trackId = this.#trackIdOf(track.mid, track.direction);
    return stats;
  }

  /** The browser's own report of the media connection, for what `getStats` leaves out. */
  getRawStats(): Promise<RTCStatsReport> {
    return this.#live().media.transport.getStats();
  }

  /** Drops the signaling connection as a network failure would; it is resumed at once. For tests of applications. */
  simulateConnectionLoss(): void {
    this.#live().signal.reconnect('asked for');
  }

  async #connectOnce(urls: readonly string[], token: string, options: ConnectOptions): Promise<void> {
    const session = this.#newSession(urls);
    this.#session = session;
    const { signal, media } = session;
    const tracks = options.tracks ?? [];
    const opening = signal.open();
    opening.catch(() => undefined); // reported below; here only so that a failing offer leaves no unhandled rejection
    if (tracks.length > 0) await this.localParticipant.placeTracks(media.transport, tracks);
    const offer = await media.transport.createOffer();
    await opening;
    const publications = tracks.length > 0 ? [this.localParticipant.newPublication(tracks, options.tag ?? '')] : [];
    const response = await signal.join({
      token,
      room: options.room ?? '',
      offer,
      publications,
      manualSubscribe: !this.#options.autoSubscribe,
      name: options.name ?? '',
      metadata: options.metadata ?? '',
      takesParticipantsChanged: true,
      clientInfo: this.#options.clientInfo,
    });
    // No await before the snapshot is in place: the pushes that follow build on it.
    this.#joined(response, options);
    if (!response.answer) throw new NegotiationError('the server gave no answer');
    await media.start(response.answer, rtcIceServers(response));
  }

  #newSession(urls: readonly string[]): Session {
    this.e2ee?.checkSupport();
    const hasMedia = (): boolean => media.transport.state === 'connected';
    const signal = new SignalClient({ urls, format: this.#options.protocol, hasMedia });
    const { videoCodec, receiveVideoCodecs, audioSlots, videoSlots, maxSlots, iceServers, iceTransportPolicy } = this.#options;
    const onData = this.#options.dataChannels ? (message: DataMessage) => this.#dataReceived(message) : undefined;
    const media: MediaSession = new MediaSession(
      {
        negotiate: (value) => signal.request({ case: 'negotiate', value }, 'negotiate'),
        moveTracks: (transport) => this.localParticipant.moveTo(transport),
      },
      { videoCodec, receiveVideoCodecs, audioSlots, videoSlots, iceServers, iceTransportPolicy, onData, e2ee: this.e2ee },
      maxSlots,
    );
    signal.on('push', (body) => this.#pushed(body));
    signal.on('reconnecting', () => this.#setState('reconnecting'));
    signal.on('resumed', (response) => this.#resumed(response));
    signal.on('ended', (reason, error) => this.#finish(reason, error));
    media.on('slots', (slots) => this.#roster.applySlots(slots));
    // What cut media may have cut the connection, which alone would notice much later; repair needs it.
    media.on('interrupted', () => signal.check());
    media.on('lost', (message) => this.emit('mediaLost', message));
    media.on('restored', () => this.emit('mediaRestored'));
    return { signal, media };
  }

  #joined(response: JoinResponse, options: ConnectOptions): void {
    const { participant, snapshot } = response;
    if (!participant || !snapshot) throw new MrtcError('INTERNAL', 'the reply to join is incomplete');
    this.#name = snapshot.room;
    this.localParticipant.updateInfo(participant);
    this.e2ee?.enter(this.#name, participant.identity);
    this.#startListening();
    for (const recording of snapshot.recordings) this.#recordings.add(recording.recordingId);
    if (options.tracks?.length) this.localParticipant.adopt(response.publications[0], options.tracks);
    this.#roster.applySnapshot(snapshot, participant.id);
    this.#setState('connected');
    logger.info(`joined ${this.#name} as ${participant.id}, session ${response.sessionId}`);
  }

  #resumed(response: ResumeResponse): void {
    const { snapshot, hasTransport } = response;
    if (snapshot) {
      this.#roster.applySnapshot(snapshot, this.localParticipant.id);
      this.#replaceRecordings(snapshot.recordings);
      for (const publication of snapshot.publications) this.localParticipant.publicationUpdated(publication);
    }
    this.#setState('connected');
    const media = this.#session?.media;
    media?.setIceServers(rtcIceServers(response));
    if (!hasTransport) void media?.replace('the media node is gone');
    // The connection was lost and is back: if it was the network, media is gone too and needs a new path.
    else media?.networkChanged();
  }

  #pushed(body: ServerBody): void {
    switch (body.case) {
      case 'participantJoined':
      case 'participantUpdated':
        return this.#participantChanged(body.value.participant);
      case 'participantLeft':
        return this.#roster.left(body.value.participantId, reasonFromWire(body.value.reason));
      case 'participantsChanged':
        return this.#participantsChanged(body.value);
      case 'publicationUpdated':
        return this.#publicationUpdated(body.value.publication);
      case 'publicationRemoved':
        return this.#publicationRemoved(body.value.publicationId, body.value.participantId);
      case 'slotsChanged':
        return this.#roster.applySlots(body.value.slots);
      case 'slotsNeeded':
        return this.#background('more slots', this.#live().media.grow(body.value.audio, body.value.video));
      case 'speakersChanged':
        return this.#speakersChanged(body.value.speakers);
      case 'messageReceived':
        return this.#messageReceived(body.value);
      case 'recordingChanged':
        return this.#recordingChanged(body.value);
      case 'mediaLost':
        return this.#background('a new transport', this.#live().media.replace(body.value.message));
      case 'moveRequested':
        return this.#background('a move to another media node', this.#live().media.move());
      case 'codecRequested':
        return this.#background(
          'a further codec',
          this.localParticipant.codecRequested(body.value.trackId, body.value.codecs),
        );
      case 'layersWanted':
        return this.#background('layers', this.localParticipant.layersWanted(body.value));
      case 'subscriptionFailed':
        if (body.value.error) {
          this.emit('trackSubscriptionFailed', body.value.trackId, errorFromServer(body.value.error));
        }
        return;
      default:
        logger.debug(`a push that this version does not know: ${body.case ?? 'new'}`);
    }
  }

  #participantChanged(info: Parameters<Participant['updateInfo']>[0] | undefined): void {
    if (!info) return;
    if (info.id === this.localParticipant.id) this.localParticipant.updateInfo(info);
    else this.#roster.joinedOrUpdated(info);
  }

  #participantsChanged(changes: ParticipantsChanged): void {
    const own = changes.participants.find(({ id }) => id === this.localParticipant.id);
    if (own) this.localParticipant.updateInfo(own);
    this.#roster.applyChanges(changes);
  }

  #publicationUpdated(info: Parameters<LocalParticipant['publicationUpdated']>[0] | undefined): void {
    if (!info) return;
    if (info.participantId === this.localParticipant.id) this.localParticipant.publicationUpdated(info);
    else this.#roster.publicationUpdated(info);
  }

  #publicationRemoved(publicationId: string, participantId: string): void {
    if (participantId === this.localParticipant.id) {
      this.#background('the end of a publication', this.localParticipant.publicationRemoved(publicationId));
    } else {
      this.#roster.publicationRemoved(publicationId, participantId);
    }
  }

  #speakersChanged(wire: readonly { participantId: string; level: number }[]): void {
    for (const { participant } of this.#speakers) participant.audioLevel = 0;
    this.#speakers = wire.flatMap(({ participantId, level }) => {
      const participant = this.#participant(participantId);
      if (participant) participant.audioLevel = level;
      return participant ? [{ participant, level }] : [];
    });
    this.emit('activeSpeakersChanged', this.#speakers);
  }

  #messageReceived(message: MessageReceived): void {
    const { payload, topic, identity, isPrivate } = message;
    this.emit('messageReceived', {
      seq: Number(message.messageSeq),
      participant: this.#participant(message.participantId),
      identity,
      topic,
      payload,
      text: new TextDecoder().decode(payload),
      sentAt: new Date(Number(message.sentAtMs)),
      isPrivate,
    });
  }

  #dataReceived({ isText, ...data }: DataMessage): void {
    const { identity } = this.localParticipant;
    const isOwn = data.identity === identity;
    const other = [...this.remoteParticipants.values()].find((participant) => participant.identity === data.identity);
    const text = isText ? new TextDecoder().decode(data.payload) : undefined;
    this.emit('dataReceived', { ...data, text, participant: isOwn ? this.localParticipant : other });
  }

  #recordingChanged({ recordingId, isActive }: Pick<RecordingChanged, 'recordingId' | 'isActive'>): void {
    if (isActive === this.#recordings.has(recordingId)) return;
    if (isActive) this.#recordings.add(recordingId);
    else this.#recordings.delete(recordingId);
    this.emit('recordingChanged', { recordingId, isActive });
  }

  #replaceRecordings(active: readonly RecordingChanged[]): void {
    const ids = new Set(active.map(({ recordingId }) => recordingId));
    for (const recordingId of [...this.#recordings]) {
      if (!ids.has(recordingId)) this.#recordingChanged({ recordingId, isActive: false });
    }
    for (const recordingId of ids) this.#recordingChanged({ recordingId, isActive: true });
  }

  #participant(id: string): Participant | undefined {
    return id === this.localParticipant.id ? this.localParticipant : this.#roster.participants.get(id);
  }

  async #setSubscribed(trackId: string, isSubscribed: boolean): Promise<void> {
    const { signal } = this.#live();
    if (!isSubscribed) {
      this.#wishes.forget(trackId);
      await signal.request({ case: 'unsubscribe', value: { trackIds: [trackId] } }, 'done');
      return;
    }
    const { slots } = await signal.request({ case: 'subscribe', value: { wishes: [{ trackId }] } }, 'subscribe');
    this.#roster.applySlots(slots);
  }

  /** Each slot's frames are decrypted with the keys of the participant whose track it carries. */
  #assignSlots(placeByMid: ReadonlyMap<string, Place>): void {
    for (const [mid, receiver] of this.#session?.media.transport.slotReceivers ?? []) {
      const place = placeByMid.get(mid);
      if (this.e2ee) {
        const { identity } = place?.participant ?? {};
        const isEncrypted = place?.track.isEncrypted ?? false;
        this.e2ee.assign(receiver, place && { identity: identity ?? '', isEncrypted, place });
      } else if (place?.track.isEncrypted && !place.track.isSubscribed) {
        const error = new EncryptionError('ENCRYPTION_KEY_MISSING', 'this track is encrypted, and this client has no key');
        this.emit('encryptionError', error, place.track, place.participant);
      }
    }
  }

  #startListening(): void {
    this.#unlisten();
    const listening = new AbortController();
    const onPage = { signal: listening.signal };
    // A page that goes for good leaves at once, so that nobody waits for the grace time to pass.
    addEventListener('pagehide', (event) => !event.persisted && void this.#session?.signal.leave(), onPage);
    addEventListener('online', () => this.#session?.signal.reconnect('the network is back'), onPage);
    const adaptive = this.#options.adaptiveStream ? new AdaptiveStreams() : undefined;
    const delays = new PlayoutDelays(() => this.#session?.media.transport, this.#options.maxPlayoutDelayMs);
    const offs = [
      this.on('trackSubscribed', (track) => adaptive?.add(track)),
      this.on('trackUnsubscribed', (track) => adaptive?.remove(track)),
    ];
    if (this.#options.statsIntervalMs > 0) {
      this.#statsTimer = setInterval(() => void this.#tellStats(), this.#options.statsIntervalMs);
    }
    this.#unlisten = () => {
      listening.abort();
      for (const off of offs) off();
      adaptive?.close();
      delays.close();
      clearInterval(this.#statsTimer);
    };
  }

  async #tellStats(): Promise<void> {
    if (!this.#session) return;
    try {
      this.emit('statsUpdated', await this.getStats());
    } catch (error) {
      logger.debug('no figures', error);
    }
  }

  #trackIdOf(mid: string, direction: 'inbound' | 'outbound'): string {
    if (direction === 'inbound') return this.#roster.trackIdOfSlot(mid);
    return this.localParticipant.tracks.find(({ line }) => line?.transceiver.mid === mid)?.id ?? '';
  }

  #background(what: string, work: Promise<void>): void {
    work.catch((error: unknown) => {
      if (error instanceof MrtcError && error.code === 'CLOSED') return;
      logger.warn(`${what}: ${String(error)}`);
    });
  }

  #live(): Session {
    if (!this.#session) throw new StateError('the room is not connected');
    return this.#session;
  }

  #setState(state: ConnectionState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit('connectionStateChanged', state);
  }

  #finish(reason: Reason, error: MrtcError | undefined): void {
    if (!this.#session) return;
    this.#dropSession();
    this.#setState('disconnected');
    this.emit('disconnected', reason, error);
  }

  #dropSession(): void {
    const session = this.#session;
    this.#session = undefined;
    this.#unlisten();
    this.#wishes.clear();
    this.localParticipant.close();
    this.#roster.clear();
    this.e2ee?.leave();
    this.#recordings.clear();
    this.#speakers = [];
    this.#lastReport = undefined;
    session?.media.close();
    session?.signal.close();
  }
}

function rtcIceServers({ iceServers }: JoinResponse | ResumeResponse): RTCIceServer[] {
  return iceServers.map(({ urls, username, credential }) => ({ urls, username, credential }));
}
