/** Node 20 has no WebSocket of its own; the one of `ws` has the browser's interface. */

import { WebSocket } from 'ws';
import { setLogLevel } from '../../src/logger';

Object.assign(globalThis, { WebSocket });
setLogLevel('silent');
