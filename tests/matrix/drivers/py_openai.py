from openai import OpenAI

from report import TASK, drive, report


def run():
    client = OpenAI(base_url=TASK["base"], api_key=TASK["token"], max_retries=TASK.get("retries", 2))
    words = [{"role": "user", "content": TASK.get("prompt", "Say three words")}]
    stream = client.chat.completions.create(model=TASK.get("model", "m"), messages=words, stream=True)
    report(open=True)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            report(data=chunk.choices[0].delta.content)


drive(run)
