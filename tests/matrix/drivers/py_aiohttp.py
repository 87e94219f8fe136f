import asyncio

from aiohttp_sse_client2 import client

from report import TASK, URL, drive, report


async def read():
    async with client.EventSource(URL, on_open=lambda: report(open=True), on_error=lambda: report(cut=True)) as source:
        async for event in source:
            report(event=event.type or "message", id=event.last_event_id, data=event.data)


drive(lambda: asyncio.run(read()))
