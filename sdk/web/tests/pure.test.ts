/** The parts that only calculate. */

import { describe, expect, it } from 'vitest';
import { create } from '@bufbuild/protobuf';
import { CAMERA_LAYERS, RECONNECT_DELAYS_MS } from '../src/defaults';
import { DeviceError, errorFromServer } from '../src/errors';
import { ErrorCode, LeaveReason, ParticipantKind, TrackSource } from '../src/gen/mrtc/common/v1/common_pb';
import { ErrorSchema } from '../src/gen/mrtc/signaling/v1/client_pb';
import { reconnectDelayMs } from '../src/signal/backoff';
import { clientFrame, decodeFrame, encodeFrame } from '../src/signal/frames';
import { connectUrl } from '../src/signal/socket';
import { summarize } from '../src/stats';
import { wishForViews } from '../src/tracks/adaptive-stream';
import { mergeWishes } from '../src/tracks/remote-track';
import { selectCodecs } from '../src/transport/codecs';
import {
  applyPlan,
  initialEncodings,
  layersFor,
  limitEncodings,
  planEncodings,
  scaledBitrate,
  withSpatialLayers,
} from '../src/transport/encodings';
import { wishToWire } from '../src/wishes';
import { participantTypeFromWire, reasonFromWire, sourceFromWire, sourceToWire } from '../src/words';
import type { Source } from '../src/words';

describe('words', () => {
  it('exist for every value of the wire', () => {
    const numbers = (e: object): number[] => Object.values(e).filter((v): v is number => typeof v === 'number');
    for (const reason of numbers(LeaveReason).slice(1)) expect(reasonFromWire(reason)).not.toBe('unknown');
    for (const kind of numbers(ParticipantKind).slice(1)) expect(participantTypeFromWire(kind)).not.toBe('unknown');
    for (const source of numbers(TrackSource).slice(1)) {
      expect(sourceToWire(sourceFromWire(source))).toBe(source);
    }
  });

  it('are `unknown` for values newer than this SDK', () => {
    expect(reasonFromWire(999 as LeaveReason)).toBe('unknown');
    expect(sourceFromWire(999 as TrackSource)).toBe('unknown' satisfies Source);
  });
});

describe('errors', () => {
  it('have the code of the server by name, also when it is newer than this SDK', () => {
    expect(errorFromServer(create(ErrorSchema, { code: ErrorCode.ROOM_NOT_FOUND })).code).toBe('ROOM_NOT_FOUND');
    expect(errorFromServer(create(ErrorSchema, { code: 999 as ErrorCode })).code).toBe('INTERNAL');
  });

  it.each([
    ['NotAllowedError', 'DEVICE_NOT_ALLOWED'],
    ['NotFoundError', 'DEVICE_NOT_FOUND'],
    ['OverconstrainedError', 'DEVICE_NOT_FOUND'],
    ['NotReadableError', 'DEVICE_FAILED'],
    ['TypeError', 'NOT_SUPPORTED'],
  ])('%s of a device is %s', (name, code) => {
    const cause = Object.assign(new Error('x'), { name });
    expect(DeviceError.fromCapture('camera', cause)).toMatchObject({ code, cause });
  });
});

describe('frames', () => {
  it.each(['proto', 'json'] as const)('are written as %s', (format) => {
    const frame = clientFrame(7, 3, { case: 'mute', value: { trackId: 'tr', isMuted: true } });
    const data = encodeFrame(frame, format);
    expect(typeof data).toBe(format === 'json' ? 'string' : 'object');
    if (format === 'json') expect(JSON.parse(data as string)).toMatchObject({ requestId: '7', ack: '3' });
  });

  it.each([['{'], ['{"requestId":"x"}'], [new ArrayBuffer(1)], [42], [undefined]])('are not made of %s', (data) => {
    const read = (): unknown => decodeFrame(data instanceof ArrayBuffer ? Uint8Array.of(255).buffer : data);
    expect(read).toThrow();
  });

  it('with unknown fields are understood', () => {
    expect(decodeFrame('{"pushSeq":"4","somethingNew":1}').pushSeq).toBe(4n);
  });
});

describe('the address', () => {
  it.each([
    ['http://h:1', 'ws://h:1/v1/connect'],
    ['https://h/base/', 'wss://h/base/v1/connect'],
    ['wss://h/v1/connect', 'wss://h/v1/connect'],
  ])('of %s is %s', (base, url) => expect(connectUrl(base)).toBe(url));
});

describe('waits between attempts', () => {
  it('grow to a bound and have jitter', () => {
    expect(reconnectDelayMs(0, () => 1)).toBe(0);
    expect(reconnectDelayMs(1, () => 0)).toBe(300);
    const last = RECONNECT_DELAYS_MS.at(-1) ?? 0;
    expect(reconnectDelayMs(99, () => 0)).toBe(last);
    expect(reconnectDelayMs(99, () => 1)).toBe(Math.round(last * 1.3));
    expect(reconnectDelayMs(99, () => 0, 1_000)).toBe(1_000);
  });
});

describe('codecs', () => {
  const c = (mimeType: string, sdpFmtpLine = ''): { mimeType: string; sdpFmtpLine: string; clockRate: number } => ({
    mimeType,
    sdpFmtpLine,
    clockRate: 90_000,
  });
  const all = [
    c('video/VP8'),
    c('video/rtx'),
    c('video/VP9', 'profile-id=2'),
    c('video/VP9', 'profile-id=0'),
    c('video/H264', 'packetization-mode=0'),
    c('video/H264', 'packetization-mode=1'),
    c('video/ulpfec'),
    c('video/flexfec-03'),
  ];

  it('are offered in the wanted order, with RTX last', () => {
    const names = selectCodecs(all, ['h264', 'vp8', 'vp9']).map((one) => `${one.mimeType} ${one.sdpFmtpLine}`.trim());
    expect(names).toEqual(['video/H264 packetization-mode=1', 'video/VP8', 'video/VP9 profile-id=0', 'video/rtx']);
  });

  it('have repair packets beside them where they are received', () => {
    const names = selectCodecs(all, ['vp8'], ['rtx', 'flexfec-03']).map((one) => one.mimeType);
    expect(names).toEqual(['video/VP8', 'video/rtx', 'video/flexfec-03']);
  });

  it('that the browser lacks give an empty list, not RTX alone', () => {
    expect(selectCodecs(all, ['av1'])).toEqual([]);
  });
});

describe('encodings', () => {
  const plan = planEncodings('video', 'camera', undefined, undefined);

  it('of a camera are three', () => {
    expect(plan.layers).toEqual(CAMERA_LAYERS);
    expect(planEncodings('video', 'screen_share', undefined, undefined).layers).toEqual([]);
    expect(planEncodings('video', 'screen_share', true, undefined).layers).toHaveLength(3);
  });

  it('are on only where wanted, and never while muted', () => {
    const encodings = initialEncodings();
    applyPlan(encodings, plan, new Set(['h']), false, 1280 * 720);
    expect(encodings.map(({ active }) => active)).toEqual([false, true, false]);
    applyPlan(encodings, plan, undefined, true, 1280 * 720);
    expect(encodings.some(({ active }) => active)).toBe(false);
  });

  it('of a small picture are fewer, its full size among them', () => {
    const sizes = (pixels: number) => layersFor(plan, pixels).map(({ rid, scaleDownBy }) => `${rid}/${scaleDownBy}`);
    expect(sizes(960 * 540)).toEqual(['q/4', 'h/2', 'f/1']);
    expect(sizes(640 * 360)).toEqual(['q/2', 'h/1']);
    expect(sizes(320 * 180)).toEqual(['q/1']);
    expect(sizes(0)).toHaveLength(3);
    const encodings = initialEncodings();
    applyPlan(encodings, plan, undefined, false, 640 * 360);
    expect(encodings.map(({ active }) => active)).toEqual([true, true, false]);
    expect(encodings[1]?.scaleResolutionDownBy).toBe(1);
  });

  it('of a track without simulcast on a simulcast m-line are the highest one, in full size', () => {
    const encodings = initialEncodings();
    applyPlan(encodings, planEncodings('video', 'camera', false, 900_000), new Set(['']), false, 0);
    expect(encodings.map(({ active }) => active)).toEqual([false, false, true]);
    expect(encodings[2]).toMatchObject({ scaleResolutionDownBy: 1, maxBitrate: 900_000 });
  });

  it('hold the layers inside one encoding, instead of simulcast', () => {
    const encodings: (RTCRtpEncodingParameters & { scalabilityMode?: string })[] = [{}];
    const svc = planEncodings('video', 'camera', undefined, undefined, 'L3T3_KEY');
    expect(svc.layers).toEqual([]);
    applyPlan(encodings, svc, undefined, false, 0);
    expect(encodings[0]).toMatchObject({ active: true, scalabilityMode: 'L3T3_KEY' });
    expect(planEncodings('video', 'camera', true, undefined, 'L3T3_KEY').scalabilityMode).toBeUndefined();

    const wanted = (count: number, width = 960, height = 540) => {
      const { scalabilityMode, scaleDownBy } = withSpatialLayers(svc, count, width, height);
      return [scalabilityMode, scaleDownBy ?? 1];
    };
    expect(wanted(0)).toEqual(['L3T3_KEY', 1]);
    expect(wanted(3)).toEqual(['L3T3_KEY', 1]);
    expect(wanted(2)).toEqual(['L2T3_KEY', 2]);
    expect(wanted(1)).toEqual(['L1T3', 4]);
    // A small capture has two layers in any case.
    expect(wanted(1, 360, 640)).toEqual(['L1T3', 2]);
    expect(wanted(2, 640, 360)).toEqual(['L3T3_KEY', 1]);
    applyPlan(encodings, withSpatialLayers(svc, 1, 960, 540), undefined, false, 0);
    expect(encodings[0]).toMatchObject({ scaleResolutionDownBy: 4, scalabilityMode: 'L1T3' });
    applyPlan(encodings, svc, undefined, false, 0);
    expect(encodings[0]).toMatchObject({ scaleResolutionDownBy: 1, scalabilityMode: 'L3T3_KEY' });
  });

  it('keep to a cap together, the lowest first', () => {
    const sent = (capBps: number, wanted?: ReadonlySet<string>): string[] => {
      const encodings = initialEncodings();
      applyPlan(encodings, plan, wanted, false, 1280 * 720);
      limitEncodings(encodings, capBps);
      return encodings.filter(({ active }) => active).map(({ rid, maxBitrate }) => `${rid}/${maxBitrate}`);
    };
    expect(sent(0)).toEqual(['q/150000', 'h/500000', 'f/1700000']);
    expect(sent(2_000_000)).toEqual(['q/150000', 'h/500000', 'f/1350000']);
    expect(sent(1_000_000)).toEqual(['q/150000', 'h/500000']);
    expect(sent(399_000)).toEqual(['q/150000']);
    expect(sent(50_000)).toEqual(['q/50000']);
    expect(sent(300_000, new Set(['h']))).toEqual(['h/300000']);
    const single: RTCRtpEncodingParameters[] = [{ active: true, maxBitrate: 2_500_000 }];
    limitEncodings(single, 600_000);
    expect(single).toEqual([{ active: true, maxBitrate: 600_000 }]);
  });

  it('need less for smaller pictures, within bounds', () => {
    expect(scaledBitrate(1_000_000, 1280 * 720)).toBe(1_000_000);
    expect(scaledBitrate(1_000_000, 640 * 360)).toBe(353_553);
    expect(scaledBitrate(1_000_000, 1)).toBe(200_000);
    expect(scaledBitrate(1_000_000, 1920 * 1080)).toBe(1_000_000);
    expect(scaledBitrate(1_000_000, 0)).toBe(1_000_000);
  });
});

describe('wishes', () => {
  it('of application and view both hold', () => {
    expect(mergeWishes({ maxHeight: 360, priority: 200 }, { maxHeight: 180 })).toEqual({
      maxHeight: 180,
      maxFps: 0,
      isPaused: false,
      priority: 200,
    });
    expect(mergeWishes({ maxFps: 15 }, { isPaused: true })).toMatchObject({ maxFps: 15, isPaused: true });
  });

  it('go out as whole numbers in range', () => {
    expect(wishToWire('t', { maxHeight: 179.6, maxFps: -1, priority: 999 })).toEqual({
      trackId: 't',
      maxHeight: 180,
      maxFps: 0,
      isPaused: false,
      priority: 255,
    });
  });
});

describe('adaptive streams', () => {
  const view = { width: 320, height: 180, isVisible: true, isCover: false, aspect: 16 / 9 };

  it('ask for the largest element', () => {
    const large = { ...view, width: 640, height: 360 };
    expect(wishForViews([view, large], true, 1)).toEqual({ maxHeight: 360 });
  });

  it('count device pixels up to two', () => {
    expect(wishForViews([view], true, 2)).toEqual({ maxHeight: 360 });
    expect(wishForViews([view], true, 4)).toEqual({ maxHeight: 360 });
  });

  it('look at the picture, not at the bars beside it', () => {
    const tall = { ...view, height: 600 };
    expect(wishForViews([tall], true, 1)).toEqual({ maxHeight: 180 });
    expect(wishForViews([{ ...tall, isCover: true }], true, 1)).toEqual({ maxHeight: 600 });
  });

  it('pause what nobody sees', () => {
    expect(wishForViews([{ ...view, isVisible: false }], true, 1)).toEqual({ isPaused: true });
    expect(wishForViews([{ ...view, height: 0 }], true, 1)).toEqual({ isPaused: true });
    expect(wishForViews([view], false, 1)).toEqual({ isPaused: true });
  });

  it('do not limit what is shown elsewhere', () => expect(wishForViews([], true, 1)).toEqual({}));
});

describe('statistics', () => {
  const inbound = (bytes: number, packets: number, lost: number, timestamp: number): Map<string, unknown> =>
    new Map<string, unknown>([
      [
        'in',
        {
          type: 'inbound-rtp',
          mid: '6',
          kind: 'video',
          bytesReceived: bytes,
          packetsReceived: packets,
          packetsLost: lost,
          timestamp,
          frameWidth: 640,
          frameHeight: 360,
          framesPerSecond: 30,
          codecId: 'c',
        },
      ],
      ['c', { type: 'codec', mimeType: 'video/VP8' }],
      ['p', { type: 'candidate-pair', nominated: true, state: 'succeeded', currentRoundTripTime: 0.02 }],
    ]);

  it('are rates between two reports', () => {
    const stats = summarize(inbound(150_000, 190, 10, 2_000), inbound(25_000, 100, 0, 1_000));
    expect(stats.rttMs).toBe(20);
    expect(stats.tracks[0]).toMatchObject({ bitrateBps: 1_000_000, lossRatio: 0.1, codec: 'vp8', width: 640 });
  });

  it('are 0 in the first report', () => {
    expect(summarize(inbound(1, 1, 0, 1)).tracks[0]).toMatchObject({ bitrateBps: 0, lossRatio: 0 });
  });

  it('leave empty slots out', () => expect(summarize(inbound(0, 0, 0, 1)).tracks).toEqual([]));

  it('add the encodings of one picture', () => {
    const one = (id: string, bytes: number, height: number, timestamp: number): [string, unknown] => [
      id,
      { type: 'outbound-rtp', mid: '1', kind: 'video', bytesSent: bytes, packetsSent: 1, frameHeight: height, timestamp },
    ];
    const before = new Map([one('q', 0, 180, 0), one('f', 0, 720, 0)]);
    const now = new Map([one('q', 1000, 180, 1000), one('f', 9000, 720, 1000)]);
    expect(summarize(now, before).tracks).toMatchObject([{ height: 720, bitrateBps: 80_000, direction: 'outbound' }]);
  });
});
