/**
 * Added to the call page: its peer connections reach the server through the impairment proxy, and stay at hand.
 *
 * `window.reroute(server)` gives the proxy's address for a server's `address:port`. Of an answer's candidates only the
 * first UDP one is kept, with that address: nothing can go around the proxy.
 */

window.connections = [];

const accept = RTCPeerConnection.prototype.setRemoteDescription;
RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
  if (!window.connections.includes(this)) window.connections.push(this);
  return accept.call(this, { type: description.type, sdp: await rerouted(description.sdp) });
};

async function rerouted(sdp) {
  const lines = [];
  let isFirst = true;
  for (const line of sdp.split('\r\n')) {
    if (line.startsWith('m=')) isFirst = true;
    if (!line.startsWith('a=candidate:')) {
      lines.push(line);
      continue;
    }
    const words = line.split(' ');
    if (!isFirst || words[2].toLowerCase() !== 'udp') continue;
    isFirst = false;
    const [address, port] = (await window.reroute(`127.0.0.1:${words[5]}`)).split(':');
    lines.push([...words.slice(0, 4), address, port, ...words.slice(6)].join(' '));
  }
  return lines.join('\r\n');
}

window.isRerouted = true;
