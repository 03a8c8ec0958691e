"""What the web does."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from pigeon.models import Letter
from pigeon.tasks import send_letter


@csrf_exempt
def letters(request: HttpRequest) -> JsonResponse:
    """Take a letter and a job for it, in the one transaction of the request; with ?fail=1 it fails after that."""
    letter = Letter.objects.create(to=request.POST["to"])
    job = send_letter.add_job({"to": letter.to})
    if request.GET.get("fail"):
        raise RuntimeError("after all was written")
    return JsonResponse({"job": job.id})
