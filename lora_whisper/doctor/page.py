"""An examination as one HTML page."""

from lora_whisper.doctor.faults import Examination
from lora_whisper.errors import MissingExtra


def to_html(examination: Examination, title: str) -> str:
    """Return the examination as a page that needs nothing from anywhere else.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra("HTML reports need jinja2: pip install 'lora-whisper[demo]'") from None
    packages = [PackageLoader(f"lora_whisper.{name}", "") for name in ("doctor", "evaluation")]
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=ChoiceLoader(packages))
    return environment.get_template("page.html").render(title=title, examination=examination)
