import httpx
from fastapi import FastAPI
from resilient import Resilience
from resilient.httpx import AsyncResilientTransport

resilience = Resilience()
catalog = resilience.dependency("catalog", origin="http://127.0.0.1:9001", required=True)
recs = resilience.dependency("recommendations", origin="http://127.0.0.1:9002", timeout=0.3)
client = httpx.AsyncClient(transport=AsyncResilientTransport(resilience))

@resilience.feature("recommendations", needs=[recs], fallback=[])
async def recommended(product: str) -> list[str]:
    response = await client.get(f"http://127.0.0.1:9002/for/{product}")
    return response.raise_for_status().json()

app = FastAPI()
resilience.install(app)   # deadlines, admission, degradation headers, error mapping, /metrics, health

@app.get("/product/{product}")
async def product(product: str):
    item = (await client.get(f"http://127.0.0.1:9001/item/{product}")).raise_for_status().json()
    return {**item, "recommendations": await recommended(product)}
