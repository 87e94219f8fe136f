import httpx
import httpx_sse

from report import TASK, URL, drive, report


def run():
    with httpx.Client(timeout=20) as client:
        with httpx_sse.connect_sse(client, TASK["method"], URL, content=TASK.get("body")) as source:
            source.response.raise_for_status()
            report(open=True)
            for event in source.iter_sse():
                report(event=event.event, id=event.id, data=event.data)


drive(run)
