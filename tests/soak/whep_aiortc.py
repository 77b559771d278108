"""Watches a WHEP address with aiortc and counts the pictures that it decodes.

Usage: whep_aiortc.py http://127.0.0.1:8080/whep SECONDS

Asks for no sound: aiortc takes no answer that refuses a part of its offer (docs/whep.md).
"""

import asyncio
import sys
import time
from urllib.parse import urljoin

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription


async def watch(url: str, seconds: float) -> int:
    connection = RTCPeerConnection()
    connection.addTransceiver("video", direction="recvonly")
    first = asyncio.get_running_loop().create_future()

    @connection.on("track")
    def on_track(track):
        if track.kind == "video" and not first.done():
            first.set_result(track)

    await connection.setLocalDescription(await connection.createOffer())
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "application/sdp"}
        async with http.post(url, data=connection.localDescription.sdp, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 201:
                raise SystemExit(f"{answer.status}: {text}")
            session = urljoin(url, answer.headers["Location"])
        await connection.setRemoteDescription(RTCSessionDescription(sdp=text, type="answer"))
        asked = time.monotonic()
        track = await asyncio.wait_for(first, 10)
        frame = await asyncio.wait_for(track.recv(), 15)
        print(f"first picture {frame.width}x{frame.height} after {time.monotonic() - asked:.2f} s")
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.wait_for(track.recv(), 5)
            count += 1
        async with http.delete(session) as answer:
            print(f"DELETE: {answer.status}")
    await connection.close()
    return count


pictures = asyncio.run(watch(sys.argv[1], float(sys.argv[2])))
print(f"decoded {pictures} pictures in {sys.argv[2]} s")
sys.exit(0 if pictures > 0 else 1)
