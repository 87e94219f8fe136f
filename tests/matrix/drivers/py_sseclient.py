import requests
import sseclient

from report import TASK, URL, drive, report


def run():
    response = requests.request(TASK["method"], URL, data=TASK.get("body"), stream=True, timeout=20)
    response.raise_for_status()
    report(open=True)
    for event in sseclient.SSEClient(response).events():
        report(event=event.event, id=event.id, data=event.data)


drive(run)
