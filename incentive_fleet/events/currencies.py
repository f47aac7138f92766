"""The active currencies of ISO 4217 and how many decimal digits their minor unit has. It never converts anything.

Source: ISO 4217 list one (current currency and funds codes, kept by SIX Interbank Clearing), as in force on
2026-01-01: ANG, BGN, CUC, HRK, SLL and ZWL have moved to list three; SLE, VED, XCG, ZWG and XAD are in. Codes for
which the list gives no minor unit (the metals XAG, XAU, XPD, XPT, the bond units XBA to XBD, XDR, XSU, XUA, and XTS
and XXX) are left out: money here is a whole number of minor units, and they have none. When ISO publishes an
amendment, change this table.
"""

from __future__ import annotations

from typing import Final

_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_TWO = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP
    COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR
    JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN
    NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL
    THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG
"""
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"

MINOR_DIGITS: Final[dict[str, int]] = {
    code: digits for digits, codes in ((0, _NONE), (2, _TWO), (3, _THREE), (4, _FOUR)) for code in codes.split()
}


def is_active(code: str) -> bool:
    """Whether the code is an active ISO 4217 currency with minor units; codes are upper case, others are unknown."""
    return code in MINOR_DIGITS
