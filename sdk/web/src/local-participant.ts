/** This client as a participant: publishes, mutes, and answers what the server asks of its publications. */

import { MUTE_RECONCILE_MS } from './defaults';
import { DeviceError, MrtcError, StateError } from './errors';
import type { Participant as ParticipantInfo, Publication } from './gen/mrtc/common/v1/common_pb';
import type { LayersWanted } from './gen/mrtc/signaling/v1/client_pb';
import { logger } from './logger';
import type { LocalTrackOptions, PublishOptions, ResolvedRoomOptions } from './options';
import { Participant } from './participant';
import { LocalPublication } from './publication';
import type { ClientBody, ServerCase, ServerValue } from './signal/frames';
import { captureCamera, captureMicrophone, captureScreen } from './tracks/capture';
import { LocalTrack } from './tracks/local-track';
import type { TrackMove } from './transport/media-session';
import type { Transport } from './transport/transport';
import { kindToWire, sourceToWire } from './words';
import type { Source } from './words';

/** What the local participant needs of its room. Internal. */
export interface LocalHost {
  /** Settings of the room. */
  readonly options: ResolvedRoomOptions;
  /** True if all that is sent is end-to-end encrypted. */
  readonly isEncrypted: boolean;
  /** Asks the server. */
  request: <C extends ServerCase>(body: ClientBody, reply: C) => Promise<ServerValue<C>>;
  /** The present transport. */
  transport: () => Transport;
  /** See `MediaSession.exclusively`. */
  exclusively: <T>(task: (transport: Transport, negotiate: () => Promise<void>) => Promise<T>) => Promise<T>;
  /** A publication stands. */
  published: (publication: LocalPublication) => void;
  /** A publication ended. */
  unpublished: (publication: LocalPublication) => void;
  /** A track was muted or unmuted. */
  muteChanged: (track: LocalTrack) => void;
}

/** Fields of the wire's NewPublication. Internal. */
export interface NewPublication {
  cid: string;
  tag: string;
  tracks: {
    kind: number;
    source: number;
    mid: string;
    layers: { rid: string; width: number; height: number; maxBitrateBps: number }[];
    isMuted: boolean;
    alternativeOf: string;
    isEncrypted: boolean;
  }[];
}

/** A further codec that somebody wants. */
interface Wanted {
  publication: LocalPublication;
  track: LocalTrack;
  codec: string;
  transport: Transport;
  negotiate: () => Promise<void>;
}

/** This client. */
export class LocalParticipant extends Participant {
  /** Own publications by id. */
  readonly publications = new Map<string, LocalPublication>();
  readonly #host: LocalHost;
  readonly #switches = new Map<Source, Promise<void>>();
  readonly #mutedAt = new Map<string, number>();
  readonly #newest = new Map<string, Publication>();
  readonly #alternativesUnderWay = new Set<string>();
  #lastCid = 0;

  constructor(info: ParticipantInfo, host: LocalHost) {
    super(info);
    this.#host = host;
  }

  /** All own tracks that are published. */
  get tracks(): LocalTrack[] {
    return [...this.publications.values()].flatMap(({ tracks }) => tracks);
  }

  /** The first own track of a source. */
  track(source: Source): LocalTrack | undefined {
    return this.tracks.find((track) => track.source === source);
  }

  /** True if the camera is published and not muted. */
  get isCameraEnabled(): boolean {
    return this.track('camera')?.isMuted === false;
  }

  /** True if the microphone is published and not muted. */
  get isMicrophoneEnabled(): boolean {
    return this.track('microphone')?.isMuted === false;
  }

  /** True if a screen is published. */
  get isScreenShareEnabled(): boolean {
    return this.track('screen_share') !== undefined;
  }

  /**
   * Publishes the camera or unmutes it; mutes it (and closes the device, see `stopCameraOnMute`).
   *
   * @throws DeviceError, ServerError, ConnectionError
   */
  setCameraEnabled(isEnabled: boolean): Promise<void> {
    const { capture, stopCameraOnMute } = this.#host.options;
    return this.#setSource('camera', isEnabled, async () => [await captureCamera(capture, stopCameraOnMute)]);
  }

  /**
   * Publishes the microphone or unmutes it; mutes it.
   *
   * @throws DeviceError, ServerError, ConnectionError
   */
  setMicrophoneEnabled(isEnabled: boolean): Promise<void> {
    return this.#setSource('microphone', isEnabled, async () => [await captureMicrophone(this.#host.options.capture)]);
  }

  /**
   * Asks the person for a screen and publishes it, with its sound if the browser gives it; ends it.
   *
   * @throws DeviceError, ServerError, ConnectionError
   */
  setScreenShareEnabled(isEnabled: boolean): Promise<void> {
    return this.#oneAtATime('screen_share', async () => {
      const published = [...this.publications.values()].find(({ tracks }) =>
        tracks.some(({ source }) => source === 'screen_share'),
      );
      if (isEnabled && !published) await this.publish(await captureScreen(this.#host.options.capture));
      else if (!isEnabled && published) await this.unpublish(published);
    });
  }

  /**
   * Publishes what the application captured or made itself.
   *
   * @throws ServerError, ConnectionError
   */
  async publishTrack(
    media: MediaStreamTrack | LocalTrack,
    options: LocalTrackOptions & PublishOptions = {},
  ): Promise<LocalPublication> {
    const track = media instanceof LocalTrack ? media : new LocalTrack(media, options);
    return this.publish([track], options);
  }

  /**
   * Publishes one sound, one picture, or both as one publication. On failure the tracks are stopped.
   *
   * @throws ServerError, ConnectionError
   */
  async publish(tracks: LocalTrack[], options: PublishOptions = {}): Promise<LocalPublication> {
    checkTracks(tracks);
    return this.#host.exclusively(async (transport, negotiate) => {
      try {
        if (await this.placeTracks(transport, tracks)) await negotiate();
        return this.adopt(await this.#announce(this.newPublication(tracks, options.tag ?? '')), tracks);
      } catch (error) {
        await this.#release(tracks);
        throw error;
      }
    });
  }

  /** Ends a publication and stops its tracks. */
  async unpublish(publication: LocalPublication): Promise<void> {
    if (!this.publications.delete(publication.id)) return;
    this.#newest.delete(publication.id);
    await this.#release(publication.tracks);
    this.#host.unpublished(publication);
    await this.#host.request({ case: 'unpublish', value: { publicationId: publication.id } }, 'done');
  }

  /** Mutes a track: no media flows, and all others are told. */
  mute(track: LocalTrack): Promise<void> {
    return this.#setMuted(track, true);
  }

  /**
   * Unmutes a track.
   *
   * @throws DeviceError if a closed camera cannot be opened again
   */
  unmute(track: LocalTrack): Promise<void> {
    return this.#setMuted(track, false);
  }

  /** Changes what others see of this participant. Unset: as it is. */
  async update(change: { name?: string; metadata?: string }): Promise<void> {
    await this.#host.request({ case: 'updateParticipant', value: change }, 'done');
  }

  // What the room calls

  /** Puts tracks on m-lines; true if a negotiation is needed before they are announced. Internal. */
  async placeTracks(transport: Transport, tracks: readonly LocalTrack[]): Promise<boolean> {
    let isNegotiationNeeded = false;
    for (const track of tracks) {
      const { kind, source, isSimulcast } = track;
      const { line, needsNegotiation } = transport.acquireLine({ kind, source, isSimulcast });
      track.line = line;
      isNegotiationNeeded ||= needsNegotiation;
      await track.sendOn(line);
    }
    return isNegotiationNeeded;
  }

  /** The announcement of tracks that were placed and whose m-lines were offered. Internal. */
  newPublication(tracks: readonly LocalTrack[], tag: string): NewPublication {
    return {
      cid: `p${++this.#lastCid}`,
      tag,
      tracks: tracks.map((track) => ({
        kind: kindToWire(track.kind),
        source: sourceToWire(track.source),
        mid: track.line?.transceiver.mid ?? '',
        layers: track.announcedLayers,
        isMuted: track.isMuted,
        alternativeOf: '',
        isEncrypted: this.#host.isEncrypted,
      })),
    };
  }

  /** The announced publication stands. Internal. */
  adopt(info: Publication | undefined, tracks: readonly LocalTrack[]): LocalPublication {
    if (!info) throw new MrtcError('INTERNAL', 'the server named no publication');
    for (const track of tracks) {
      const mid = track.line?.transceiver.mid;
      track.id = info.tracks.find((one) => one.mid === mid)?.id ?? '';
      if (!track.id) logger.warn(`the server named no track for m-line ${mid ?? ''}`);
    }
    const publication = new LocalPublication(info, tracks);
    this.publications.set(publication.id, publication);
    for (const track of tracks) this.#follow(track, publication);
    this.#obeyCaps(publication, info);
    this.#host.published(publication);
    return publication;
  }

  /** Puts everything that is published on a new transport. Internal. */
  async moveTo(transport: Transport): Promise<TrackMove> {
    const tracks = this.tracks;
    const former = tracks.map((track) => ({ track, line: track.line, lines: track.alternatives.map((one) => one.line) }));
    await this.placeTracks(transport, tracks);
    for (const track of tracks) {
      for (const alternative of track.alternatives) {
        const { kind, source, isSimulcast } = track;
        alternative.line = transport.acquireLine({ kind, source, isSimulcast, codec: alternative.codec }).line;
        await track.sendOn(alternative.line, alternative.wantedRids);
      }
    }
    const mids = (): Record<string, string> => {
      const all = tracks.flatMap(({ id, line, alternatives }) => [{ id, line }, ...alternatives]);
      return Object.fromEntries(all.map(({ id, line }) => [id, line?.transceiver.mid ?? '']));
    };
    const undo = (): void => {
      for (const { track, line, lines } of former) {
        track.line = line;
        track.alternatives.forEach((one, index) => (one.line = lines[index] ?? one.line));
      }
    };
    return { mids, undo };
  }

  /** News of an own publication: an admin may have muted a track, or changed its cap. Internal. */
  publicationUpdated(info: Publication): void {
    const publication = this.publications.get(info.id);
    if (!publication) return;
    this.#newest.set(info.id, info);
    this.#obeyCaps(publication, info);
    for (const track of publication.tracks) {
      const isMuted = info.tracks.find(({ id }) => id === track.id)?.isMuted;
      if (isMuted && !track.isMuted) this.#obeyMute(track, info);
    }
  }

  /** A publication was ended by the server. Internal. */
  async publicationRemoved(publicationId: string): Promise<void> {
    const publication = this.publications.get(publicationId);
    if (!publication) return;
    this.publications.delete(publicationId);
    this.#newest.delete(publicationId);
    await this.#release(publication.tracks);
    this.#host.unpublished(publication);
  }

  /** These encodings, or layers inside one, have receivers. Internal. */
  async layersWanted({ trackId, rids, spatialLayers }: LayersWanted): Promise<void> {
    const wanted = new Set(rids);
    for (const track of this.tracks) {
      // Sound is always sent: who speaks is known from it even while nobody listens.
      if (track.kind === 'audio') continue;
      const alternative = track.alternatives.find(({ id }) => id === trackId);
      if (alternative) alternative.wantedRids = wanted;
      else if (track.id === trackId) {
        track.wantedRids = wanted;
        track.wantedSpatialLayers = spatialLayers;
      } else continue;
      await track.refreshEncodings();
    }
  }

  /** Somebody needs a track in one of these codecs: sends it in the first that this browser can. Internal. */
  async codecRequested(trackId: string, codecs: readonly string[]): Promise<void> {
    const publication = [...this.publications.values()].find(({ tracks }) => tracks.some(({ id }) => id === trackId));
    const track = publication?.tracks.find(({ id }) => id === trackId);
    if (!publication || !track || track.alternatives.some(({ codec }) => codecs.includes(codec))) return;
    if (this.#alternativesUnderWay.has(trackId)) return;
    this.#alternativesUnderWay.add(trackId);
    try {
      for (const codec of codecs) {
        const isSent = await this.#host.exclusively((transport, negotiate) =>
          this.#publishAlternative({ publication, track, codec, transport, negotiate }),
        );
        if (isSent) return;
      }
      logger.warn(`none of the codecs ${codecs.join(', ')} can be sent by this browser`);
    } finally {
      this.#alternativesUnderWay.delete(trackId);
    }
  }

  /** The room is over: stops everything without telling the server. Internal. */
  close(): void {
    for (const track of this.tracks) {
      track.stop();
      track.id = '';
      track.line = undefined;
    }
    this.publications.clear();
  }

  async #announce(publication: NewPublication): Promise<Publication | undefined> {
    const value = { publications: [publication] };
    const { publications } = await this.#host.request({ case: 'publish', value }, 'publish');
    return publications[0];
  }

  async #publishAlternative({ publication, track, codec, transport, negotiate }: Wanted): Promise<boolean> {
    const { kind, source, isSimulcast } = track;
    const { line, needsNegotiation } = transport.acquireLine({ kind, source, isSimulcast, codec });
    if (line.codec !== codec) {
      await transport.releaseLine(line);
      return false;
    }
    try {
      await track.sendOn(line, undefined);
      if (needsNegotiation) await negotiate();
      const mid = line.transceiver.mid ?? '';
      const announced = this.newPublication([track], publication.tag);
      announced.cid = `${track.id}:${codec}`;
      announced.tracks = announced.tracks.map((one) => ({ ...one, mid, alternativeOf: track.id }));
      const stored = await this.#announce(announced);
      const id = stored?.tracks.find((one) => one.mid === mid)?.id ?? '';
      track.alternatives.push({ id, codec, line, wantedRids: undefined });
      logger.info(`${track.source} is sent in ${codec} too`);
      return true;
    } catch (error) {
      await transport.releaseLine(line);
      throw error;
    }
  }

  #follow(track: LocalTrack, publication: LocalPublication): void {
    track.on('muted', () => this.#host.muteChanged(track));
    track.on('ended', () => {
      logger.info(`the ${track.source} was taken away`);
      this.unpublish(publication).catch((error: unknown) => logger.warn('unpublish', error));
    });
  }

  #setSource(source: Source, isEnabled: boolean, capture: () => Promise<LocalTrack[]>): Promise<void> {
    return this.#oneAtATime(source, async () => {
      const track = this.track(source);
      if (track) await this.#setMuted(track, !isEnabled);
      else if (isEnabled) await this.publish(await capture());
    });
  }

  /** Two clicks in a row must not open a device twice. */
  #oneAtATime(source: Source, action: () => Promise<void>): Promise<void> {
    const before = this.#switches.get(source) ?? Promise.resolve();
    const result = before.then(action);
    this.#switches.set(source, result.catch(() => undefined));
    return result;
  }

  async #setMuted(track: LocalTrack, isMuted: boolean): Promise<void> {
    if (!track.isPublished) throw new StateError('the track is not published');
    if (track.isMuted === isMuted) return;
    this.#mutedAt.set(track.id, performance.now());
    await track.setMuted(isMuted);
    await this.#host.request({ case: 'mute', value: { trackId: track.id, isMuted } }, 'done');
    this.#mutedAt.set(track.id, performance.now());
  }

  /**
   * The server says muted, we are not. Right after an own change that may be old news, so it is looked at again when the
   * dust has settled; nobody but the person itself ever unmutes.
   */
  #obeyMute(track: LocalTrack, info: Publication): void {
    const quietMs = performance.now() - (this.#mutedAt.get(track.id) ?? -Infinity);
    if (quietMs < MUTE_RECONCILE_MS) {
      setTimeout(() => {
        if (this.#newest.get(info.id) === info) this.publicationUpdated(info);
      }, MUTE_RECONCILE_MS - quietMs);
      return;
    }
    track.setMuted(true).catch((error: unknown) => logger.warn('mute by the server', error));
  }

  #obeyCaps(publication: LocalPublication, info: Publication): void {
    for (const track of publication.tracks) {
      const capBps = info.tracks.find(({ id }) => id === track.id)?.maxBitrateBps ?? 0;
      if (capBps === track.capBps) continue;
      track.capBps = capBps;
      track.refreshEncodings().catch((error: unknown) => logger.warn('cap of a track', error));
    }
  }

  async #release(tracks: readonly LocalTrack[]): Promise<void> {
    const transport = this.#host.transport();
    for (const track of tracks) {
      for (const line of [track.line, ...track.alternatives.map((one) => one.line)]) {
        if (line) await transport.releaseLine(line);
      }
      track.alternatives.length = 0;
      track.line = undefined;
      track.id = '';
      track.stop();
    }
  }
}

function checkTracks(tracks: readonly LocalTrack[]): void {
  const kinds = new Set(tracks.map(({ kind }) => kind));
  if (tracks.length === 0 || kinds.size !== tracks.length) {
    throw new MrtcError('BAD_ARGUMENT', 'a publication has one audio track, one video track, or both');
  }
  if (tracks.some((track) => track.isPublished)) throw new StateError('the track is published already');
  if (tracks.some((track) => track.mediaStreamTrack.readyState === 'ended' && !track.isMuted)) {
    throw new DeviceError('DEVICE_FAILED', 'the track has ended already');
  }
}
