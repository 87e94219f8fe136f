import asyncio
import json

import aiohttp
from aiohttp_sse_client2 import client

from report import TASK, URL, drive, report


async def read(cursor):
    headers = {"Last-Event-ID": cursor["id"]} if cursor["id"] else {}
    async with client.EventSource(URL, headers=headers, on_open=lambda: report(open=True)) as source:
        async for event in source:
            report(event=event.type or "message", id=event.last_event_id, data=event.data)
            cursor["id"] = event.last_event_id
            if event.type == "hero.close":
                cursor.update(json.loads(event.data))


async def again(cursor):
    """Comes back after a cut, which the client reports as an exception."""
    while cursor["reconnect"]:
        try:
            return await read(cursor)
        except aiohttp.ClientError:
            report(cut=True)
            await asyncio.sleep(4)


drive(lambda: asyncio.run((again if TASK.get("setting") == "again" else read)({"id": "", "reconnect": True})))
