"""The languages of the embedded world, one file each; to add one, write its file and name it here."""

from jaxprefix.babel.languages.de import GERMAN
from jaxprefix.babel.languages.en import ENGLISH
from jaxprefix.babel.languages.es import SPANISH
from jaxprefix.babel.languages.fr import FRENCH
from jaxprefix.babel.languages.ru import RUSSIAN
from jaxprefix.babel.languages.sw import SWAHILI
from jaxprefix.babel.languages.tr import TURKISH
from jaxprefix.babel.languages.zh import CHINESE

ALL = (ENGLISH, GERMAN, SPANISH, FRENCH, RUSSIAN, CHINESE, SWAHILI, TURKISH)
