"""The languages of the embedded world, one file each. To add one, write its file and list it here."""

from jaxprefix.tasks.babel.languages.ar import ARABIC
from jaxprefix.tasks.babel.languages.bg import BULGARIAN
from jaxprefix.tasks.babel.languages.bn import BENGALI
from jaxprefix.tasks.babel.languages.de import GERMAN
from jaxprefix.tasks.babel.languages.el import GREEK
from jaxprefix.tasks.babel.languages.en import ENGLISH
from jaxprefix.tasks.babel.languages.es import SPANISH
from jaxprefix.tasks.babel.languages.fr import FRENCH
from jaxprefix.tasks.babel.languages.hi import HINDI
from jaxprefix.tasks.babel.languages.ja import JAPANESE
from jaxprefix.tasks.babel.languages.ko import KOREAN
from jaxprefix.tasks.babel.languages.ro import ROMANIAN
from jaxprefix.tasks.babel.languages.ru import RUSSIAN
from jaxprefix.tasks.babel.languages.sw import SWAHILI
from jaxprefix.tasks.babel.languages.te import TELUGU
from jaxprefix.tasks.babel.languages.th import THAI
from jaxprefix.tasks.babel.languages.tr import TURKISH
from jaxprefix.tasks.babel.languages.ur import URDU
from jaxprefix.tasks.babel.languages.vi import VIETNAMESE
from jaxprefix.tasks.babel.languages.zh import CHINESE

ALL = (
    *(ENGLISH, ARABIC, BULGARIAN, BENGALI, GERMAN, GREEK, SPANISH, FRENCH, HINDI, JAPANESE),
    *(KOREAN, ROMANIAN, RUSSIAN, SWAHILI, TELUGU, THAI, TURKISH, URDU, VIETNAMESE, CHINESE),
)
