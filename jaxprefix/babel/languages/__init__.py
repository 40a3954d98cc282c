"""The languages of the embedded world, one file each; to add one, write its file and name it here."""

from jaxprefix.babel.languages.ar import ARABIC
from jaxprefix.babel.languages.bg import BULGARIAN
from jaxprefix.babel.languages.bn import BENGALI
from jaxprefix.babel.languages.de import GERMAN
from jaxprefix.babel.languages.el import GREEK
from jaxprefix.babel.languages.en import ENGLISH
from jaxprefix.babel.languages.es import SPANISH
from jaxprefix.babel.languages.fr import FRENCH
from jaxprefix.babel.languages.hi import HINDI
from jaxprefix.babel.languages.ja import JAPANESE
from jaxprefix.babel.languages.ko import KOREAN
from jaxprefix.babel.languages.ro import ROMANIAN
from jaxprefix.babel.languages.ru import RUSSIAN
from jaxprefix.babel.languages.sw import SWAHILI
from jaxprefix.babel.languages.te import TELUGU
from jaxprefix.babel.languages.th import THAI
from jaxprefix.babel.languages.tr import TURKISH
from jaxprefix.babel.languages.ur import URDU
from jaxprefix.babel.languages.vi import VIETNAMESE
from jaxprefix.babel.languages.zh import CHINESE

ALL = (
    *(ENGLISH, ARABIC, BULGARIAN, BENGALI, GERMAN, GREEK, SPANISH, FRENCH, HINDI, JAPANESE),
    *(KOREAN, ROMANIAN, RUSSIAN, SWAHILI, TELUGU, THAI, TURKISH, URDU, VIETNAMESE, CHINESE),
)
