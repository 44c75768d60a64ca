/* SPDX-License-Identifier: Apache-2.0 */
/* fc_format.c - the texts that fields of Firecracker's interface take: addresses, numbers in texts, masks of bits */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/fc_check.h"

#define LINK_LOCAL_PREFIX 0xa9fe0000u /* 169.254.0.0 */
#define LINK_LOCAL_MASK   0xffff0000u

static bool is_mac(const char *text)
{
    static const char form[] = "xx:xx:xx:xx:xx:xx";

    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        bool fits = form[i] == ':' ? text[i] == ':' : isxdigit((unsigned char)text[i]) != 0;

        if (!fits)
            return false; /* the end of a short text, too */
    }
    return text[sizeof(form) - 1] == '\0';
}

/* is_link_local() - an address that no router passes on: the only ones that the metadata service takes */
static bool is_link_local(const char *text)
{
    struct in_addr address;

    return inet_pton(AF_INET, text, &address) == 1 &&
           (ntohl(address.s_addr) & LINK_LOCAL_MASK) == LINK_LOCAL_PREFIX;
}

/* is_number() - "0x..." or "0b..." of at most @bits bits */
static bool is_number(const char *text, unsigned bits)
{
    unsigned shift = text[0] == '0' && text[1] == 'x' ? 4 : 1;
    const char *digits = shift == 4 ? "0123456789abcdefABCDEF" : "01";
    size_t n;

    if (text[0] != '0' || (text[1] != 'x' && text[1] != 'b'))
        return false;
    text += 2;
    n = strlen(text);
    if (n == 0 || strspn(text, digits) != n)
        return false;
    n -= min_u64(strspn(text, "0"), n - 1);
    return n * shift <= bits;
}

/* is_mask() - '0', '1', 'x' for at most @bits bits; '_' anywhere, for the eye */
static bool is_mask(const char *text, unsigned bits)
{
    unsigned n = 0;

    if (strncmp(text, "0b", 2) == 0)
        text += 2;
    for (; *text != '\0'; text++) {
        if (!strchr("01x_", *text))
            return false;
        n += *text != '_';
    }
    return n > 0 && n <= bits;
}

static bool is_capability(const char *text)
{
    char *end;

    if (*text == '!')
        text++;
    return isdigit((unsigned char)*text) && strlen(text) <= 10 &&
           strtoull(text, &end, 10) <= UINT32_MAX && *end == '\0';
}

const char *fc_format_check(enum fc_format format, const char *text)
{
    switch (format) {
    case FC_FORMAT_NAME:
    case FC_FORMAT_PATH:
        return text[0] != '\0' ? NULL : "a text that is not empty";
    case FC_FORMAT_ID:
        return fc_is_id(text) ? NULL : "a name of letters, digits and _";
    case FC_FORMAT_MAC:
        return is_mac(text) ? NULL : "an address such as 06:00:00:00:00:01";
    case FC_FORMAT_IPV4:
        return is_link_local(text) ? NULL : "a link-local address such as 169.254.169.254";
    case FC_FORMAT_NUMBER32:
        return is_number(text, 32) ? NULL : "a text with a number of 32 bits, such as \"0x1f\"";
    case FC_FORMAT_NUMBER64:
        return is_number(text, 64) ? NULL : "a text with a number of 64 bits, such as \"0x1f\"";
    case FC_FORMAT_BITS32:
        return is_mask(text, 32) ? NULL : "a mask of up to 32 bits, such as \"0b1x0\"";
    case FC_FORMAT_BITS64:
        return is_mask(text, 64) ? NULL : "a mask of up to 64 bits, such as \"0b1x0\"";
    case FC_FORMAT_BITS128:
        return is_mask(text, 128) ? NULL : "a mask of up to 128 bits, such as \"0b1x0\"";
    case FC_FORMAT_CAPABILITY:
        return is_capability(text) ? NULL : "a capability's number, such as \"121\" or \"!121\"";
    default:
        return NULL;
    }
}
