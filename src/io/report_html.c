/* Text of the report: escaping, numbers in words. */
#include "report_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void escape(pn_buf *b, const char *text) {
    for (const char *p = text; *p; p++) {
        switch (*p) {
        case '&': pn_buf_text(b, "&amp;"); break;
        case '<': pn_buf_text(b, "&lt;"); break;
        case '>': pn_buf_text(b, "&gt;"); break;
        case '"': pn_buf_text(b, "&quot;"); break;
        case '\'': pn_buf_text(b, "&#39;"); break;
        default:
            if ((unsigned char)*p < 0x20 || *p == 0x7f)
                pn_buf_text(b, *p == '\n' || *p == '\t' ? " " : "\xef\xbf\xbd");
            else
                pn_buf_char(b, *p);
        }
    }
}

void pn_html(pn_buf *b, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    for (const char *p = fmt; *p;) {
        size_t literal = strcspn(p, "%");
        pn_buf_append(b, p, literal);
        p += literal;
        if (!*p) break;
        char spec[16], text[512]; /* text: a double of any size in fixed point */
        size_t n = 1 + strspn(p + 1, "-+ 0123456789.l");
        PN_ASSERT(n + 2 <= sizeof spec);
        memcpy(spec, p, n + 1);
        spec[n + 1] = '\0';
        int longs = (int)(strchr(spec, 'l') ? strrchr(spec, 'l') - strchr(spec, 'l') + 1 : 0);
        switch (p[n]) {
        case '%': pn_buf_char(b, '%'); break;
        case 's': escape(b, va_arg(args, const char *)); break;
        case 'd':
            if (longs == 2)
                snprintf(text, sizeof text, spec, va_arg(args, long long));
            else if (longs == 1)
                snprintf(text, sizeof text, spec, va_arg(args, long));
            else
                snprintf(text, sizeof text, spec, va_arg(args, int));
            pn_buf_text(b, text);
            break;
        case 'f':
        case 'g':
            snprintf(text, sizeof text, spec, va_arg(args, double));
            pn_buf_text(b, text);
            break;
        default: PN_ASSERT(!"a conversion pn_html knows");
        }
        p += n + 1;
    }
    va_end(args);
}

void pn_page_path_text(pn_buf *b, const char *path) {
    for (const char *p = path; *p; p++) {
        char one[2] = { *p };
        escape(b, one);
        if (*p == ',') pn_buf_text(b, "<wbr />");
    }
}

const char *pn_page_type_name(const char *candidate, char *buffer) {
    size_t n = strlen(candidate), digits = n;
    while (digits && isdigit((unsigned char)candidate[digits - 1])) digits--;
    if (digits > 1 && digits < n && candidate[digits - 1] == '_') n = digits - 1;
    snprintf(buffer, PN_PAGE_NAME, "%.*s", (int)n, candidate);
    return buffer;
}

const char *pn_page_short(const char *text, int most, char *buffer) {
    int characters = 0;
    size_t keep = 0, n = 0; /* bytes of the first most - 1 characters, bytes so far */
    for (; text[n] && n < PN_PAGE_NAME - 4; n++) {
        bool begins = ((unsigned char)text[n] & 0xc0) != 0x80;
        if (begins && characters == most - 1) keep = n;
        if (begins && characters++ == most) break;
    }
    if (!text[n]) {
        memcpy(buffer, text, n + 1);
        return buffer;
    }
    if (characters < most) /* stopped by the buffer: back to the start of a character */
        for (keep = n; keep && ((unsigned char)text[keep] & 0xc0) == 0x80;) keep--;
    memcpy(buffer, text, keep);
    strcpy(buffer + keep, "\xe2\x80\xa6");
    return buffer;
}

/* The hyphen of a negative number as a minus sign. */
static const char *minus(const char *number, char buffer[PN_PAGE_TEXT]) {
    size_t n = 0;
    for (; *number && n + 4 < PN_PAGE_TEXT; number++) {
        if (*number == '-') {
            memcpy(buffer + n, "\xe2\x88\x92", 3);
            n += 3;
        } else
            buffer[n++] = *number;
    }
    buffer[n] = '\0';
    return buffer;
}

static const char *number_text(double v, const char *sign, char buffer[PN_PAGE_TEXT]) {
    char text[48];
    double size = fabs(v);
    if (size >= 1e4 || (size > 0 && size < 5e-4))
        snprintf(text, sizeof text, *sign ? "%+.2g" : "%.2g", v);
    else
        snprintf(text, sizeof text, *sign ? "%+.3f" : "%.3f", v);
    return minus(text, buffer);
}

const char *pn_page_value(const char *metric, double v, char buffer[PN_PAGE_TEXT]) {
    if (!pn_page_is_share(metric) || fabs(v) > 1e6) return number_text(v, "", buffer);
    char text[48];
    snprintf(text, sizeof text, "%.1f\xc2\xa0%%", 100 * v);
    return minus(text, buffer);
}

const char *pn_page_gain(const char *metric, double v, char buffer[PN_PAGE_TEXT]) {
    if (!pn_page_is_share(metric) || fabs(v) > 1e6) return number_text(v, "+", buffer);
    char text[48];
    snprintf(text, sizeof text, "%+.1f\xc2\xa0points", 100 * v);
    return minus(text, buffer);
}

const char *pn_page_bytes(double v, char buffer[PN_PAGE_TEXT]) {
    static const char *const unit[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB" };
    int u = 0;
    for (; fabs(v) >= 1024 && u < 5; u++) v /= 1024;
    snprintf(buffer, PN_PAGE_TEXT, u ? fabs(v) < 1e6 ? "%.1f\xc2\xa0%s" : "%.2g\xc2\xa0%s" : "%.0f\xc2\xa0%s", v,
             unit[u]);
    return buffer;
}

const char *pn_page_context(double tokens, char buffer[PN_PAGE_TEXT]) {
    if (tokens >= 1024 && tokens < 1e12 && fmod(tokens, 1024) == 0)
        snprintf(buffer, PN_PAGE_TEXT, "%.0fK", tokens / 1024);
    else
        snprintf(buffer, PN_PAGE_TEXT, fabs(tokens) < 1e12 ? "%.0f" : "%.2g", tokens);
    return buffer;
}

const char *pn_page_amount(double v, char buffer[PN_PAGE_TEXT]) {
    static const char *const unit[] = { "", "k", "M", "G", "T", "P" };
    int u = 0;
    for (; v >= 999.5 && u < 5; u++) v /= 1000;
    int decimals = (!u && v == floor(v)) || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;
    if (v < 1e6)
        snprintf(buffer, PN_PAGE_TEXT, "%.*f%s", decimals, v, unit[u]);
    else
        snprintf(buffer, PN_PAGE_TEXT, "%.2g%s", v, unit[u]);
    return buffer;
}

void pn_page_section(pn_page *r, const char *id, const char *title) {
    pn_html(r->out, "<section id=\"%s\">\n<h2>%s</h2>\n", id, title);
    pn_html(r->contents, "<li><a href=\"#%s\">%s</a></li>\n", id, title);
}

void pn_page_section_end(pn_page *r) {
    pn_buf_text(r->out, "</section>\n");
}
