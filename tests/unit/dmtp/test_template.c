/* dmtp/template: variables of shared messages. */
#include "dmtp_test.h"

#include "dmtp/message.h"

#define VARS "d1:a1:A1:b5:<&\">'3:n_110:{{a}}{{b}}1:z0:e"

static void
assert_expands(const char *text, enum dmtp_escape escape, const char *expected)
{
	struct slice s = flush_copy(slice_str(text));
	struct buffer b;

	buffer_init(&b, 10000);
	dmtp_template_expand(s, escape, SLICE(VARS), &b);
	assert_slice(buffer_slice(&b), expected);
	buffer_free(&b);
	flush_free(s);
}

static void
test_plain_text(void **state)
{
	static const struct {
		const char *text, *expected;
	} table[] = {
		{ "", "" },
		{ "no variable", "no variable" },
		{ "{{a}}", "A" },
		{ "x{{a}}y{{a}}z", "xAyAz" },
		{ "{{b}}", "<&\">'" },       /* as it is */
		{ "{{n_1}}", "{{a}}{{b}}" }, /* inserted once, not scanned again */
		{ "{{missing}}.", "." },
		{ "{{z}}.", "." },
		{ "{{{a}}}", "{A}" },
		{ "{{{{a}}", "{{A" },
		{ "{{a}", "{{a}" },
		{ "{a}}", "{a}}" },
		{ "{{A}}", "{{A}}" }, /* not a name */
		{ "{{ a }}", "{{ a }}" },
		{ "{{}}", "{{}}" },
		{ "{{a-b}}", "{{a-b}}" },
		{ "{{aaaaaaaaaabbbbbbbbbbcccccccccc}}", "" },
		{ "{{aaaaaaaaaabbbbbbbbbbccccccccccd}}",
		  "{{aaaaaaaaaabbbbbbbbbbccccccccccd}}" },
		{ "{{", "{{" },
		{ "{{a", "{{a" },
		{ "{", "{" },
		{ "<a href='{{a}}'>", "<a href='A'>" }, /* no markup here */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		assert_expands(table[i].text, DMTP_ESCAPE_NONE, table[i].expected);
}

static void
test_html_escapes_in_text_and_leaves_markup_alone(void **state)
{
	static const struct {
		const char *text, *expected;
	} table[] = {
		{ "<p>{{b}}</p>", "<p>&lt;&amp;&quot;&gt;&#39;</p>" },
		{ "<p>{{n_1}}</p>", "<p>{{a}}{{b}}</p>" },
		{ "<a href=\"{{a}}\">{{a}}</a>", "<a href=\"{{a}}\">A</a>" },
		{ "<a href='{{a}}' x={{a}} {{a}}>{{a}}", "<a href='{{a}}' x={{a}} {{a}}>A" },
		{ "<a x=\">{{a}}\">{{a}}", "<a x=\">{{a}}\">A" },
		{ "<a x='\">{{a}}'>{{a}}", "<a x='\">{{a}}'>A" },
		{ "<a b=c\"d e=\"f>{{a}}\">{{a}}", "<a b=c\"d e=\"f>{{a}}\">A" },
		{ "<a \"b>{{a}}", "<a \"b>A" }, /* a quote that opens nothing */
		{ "<a =\"x>{{a}}", "<a =\"x>A" },
		{ "<a x = \"{{a}}>\">{{a}}", "<a x = \"{{a}}>\">A" },
		{ "<a x=>{{a}}", "<a x=>A" },
		{ "<a x={{a}}>{{a}}", "<a x={{a}}>A" },
		{ "<br/>{{a}}<br />{{a}}", "<br/>A<br />A" },
		{ "<{{a}}>{{a}}", "<{{a}}>A" }, /* a value must not become a tag */
		{ "1 < 2 {{a}}", "1 < 2 A" },
		{ "</p{{a}}>{{a}}", "</p{{a}}>A" },
		{ "<!-- {{a}} > {{a}} -->{{a}}", "<!-- {{a}} > {{a}} -->A" },
		{ "<!-->{{a}}", "<!-->A" },
		{ "<!--->{{a}}", "<!--->A" },
		{ "<!---{{a}}-->{{a}}", "<!---{{a}}-->A" },
		{ "<!doctype {{a}}>{{a}}", "<!doctype {{a}}>A" },
		{ "<?x {{a}}?>{{a}}", "<?x {{a}}?>A" },
		{ "</ {{a}}>{{a}}", "</ {{a}}>A" },
		{ "<script>{{a}}</b>{{a}}</scripts>{{a}}</script>{{a}}",
		  "<script>{{a}}</b>{{a}}</scripts>{{a}}</script>A" },
		{ "<STYLE x>{{a}}</Style >{{a}}", "<STYLE x>{{a}}</Style >A" },
		{ "<title>{{a}}</title/>{{a}}", "<title>{{a}}</title/>A" },
		{ "<styles>{{a}}", "<styles>A" },
		{ "<textarea>{{a}}", "<textarea>{{a}}" },
		{ "<script>{{a}}</script", "<script>{{a}}</script" },
		{ "<script>{{a}}<", "<script>{{a}}<" },
		{ "{{a}}<p", "A<p" },
		{ "{{a}}<", "A<" },
		{ "{{a}}</", "A</" },
		{ "{{a}}<!-", "A<!-" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		assert_expands(table[i].text, DMTP_ESCAPE_HTML, table[i].expected);
}

static void
test_which_types_are_escaped(void **state)
{
	(void)state;
	assert_int_equal(dmtp_escape_for(SLICE("text/html")), DMTP_ESCAPE_HTML);
	assert_int_equal(dmtp_escape_for(SLICE("Text/HTML; charset=utf-8")), DMTP_ESCAPE_HTML);
	assert_int_equal(dmtp_escape_for(SLICE("text/html ;x")), DMTP_ESCAPE_HTML);
	assert_int_equal(dmtp_escape_for(SLICE("application/xhtml+xml")), DMTP_ESCAPE_HTML);
	assert_int_equal(dmtp_escape_for(SLICE("text/htmlx")), DMTP_ESCAPE_NONE);
	assert_int_equal(dmtp_escape_for(SLICE("text/plain")), DMTP_ESCAPE_NONE);
	assert_int_equal(dmtp_escape_for(SLICE("")), DMTP_ESCAPE_NONE);
}

static void
test_without_variables_every_one_is_empty(void **state)
{
	struct buffer b;

	(void)state;
	buffer_init(&b, 100);
	dmtp_template_expand(SLICE("Dear {{a}}!"), DMTP_ESCAPE_NONE, SLICE(""), &b);
	assert_slice(buffer_slice(&b), "Dear !");
	buffer_clear(&b);
	dmtp_template_expand(SLICE("{{a}}!"), DMTP_ESCAPE_NONE, SLICE("d1:ai1ee"), &b);
	assert_slice(buffer_slice(&b), "!");
	buffer_free(&b);
}

static void
test_variables_have_names_and_text(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} table[] = {
		{ "de", true },
		{ VARS, true },
		{ "d30:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0:e", true },
		{ "d31:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0:e", false },
		{ "d0:0:e", false },
		{ "d1:A0:e", false },
		{ "d1:a-0:e", false },
		{ "d1:ai1ee", false },
		{ "d1:alee", false },
		{ "d1:a1:\xff"
		  "e",
		  false },
		{ "d1:b0:1:a0:e", false },
		{ "le", false },
		{ "", false },
		{ "d1:a0:", false },
		{ "d1:a0:ee", false },
	};
	struct buffer b;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct slice s = flush_copy(slice_str(table[i].text));

		if (dmtp_vars_valid(s) != table[i].good)
			fail_msg("%s", table[i].text);
		flush_free(s);
	}
	buffer_init(&b, 2000); /* at most 1024 octets */
	buffer_add_str(&b, "d1:a1014:");
	memset(buffer_reserve(&b, 1015), 'x', 1015);
	buffer_added(&b, 1014);
	buffer_add_u8(&b, 'e');
	assert_int_equal(b.len, 1024);
	assert_true(dmtp_vars_valid(buffer_slice(&b)));
	b.data[7] = '5';
	b.data[1023] = 'x';
	buffer_add_u8(&b, 'e');
	assert_int_equal(ben_check(buffer_slice(&b), 2000), BEN_OK);
	assert_false(dmtp_vars_valid(buffer_slice(&b)));
	buffer_free(&b);
}

static void
test_markdown_escapes_and_leaves_links_alone(void **state)
{
	static const struct {
		const char *text, *expected;
	} table[] = {
		{ "*{{a}}*", "*A*" },
		{ "{{b}}", "&lt;&amp;&quot;&gt;&#39;" },
		{ "{{n_1}}", "\\{\\{a\\}\\}\\{\\{b\\}\\}" },
		{ "[{{a}}](https://x/{{a}}) {{a}}", "[A](https://x/{{a}}) A" },
		{ "[x](<{{a}}>) {{a}}", "[x](<{{a}}>) A" },
		{ "[x](https://x \"{{a}}\")", "[x](https://x \"{{a}}\")" },
		{ "[x]: https://x/{{a}}\n{{a}}", "[x]: https://x/{{a}}\nA" },
		{ "[x](\n{{a}}", "[x](\nA" }, /* at the latest with its line */
		{ "<b title='{{a}}'>{{a}}</b>", "<b title='{{a}}'>A</b>" },
		{ "<{{a}}", "<{{a}}" },
		{ "](", "](" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		assert_expands(table[i].text, DMTP_ESCAPE_MARKDOWN, table[i].expected);
}

static void
collect(const char *name, void *arg)
{
	struct buffer *b = arg;

	buffer_add_fmt(b, "%s ", name);
}

/* Told are the places where something is inserted, and no others. */
static void
test_names(void **state)
{
	static const struct {
		const char *text;
		enum dmtp_escape escape;
		const char *names;
	} table[] = {
		{ "", DMTP_ESCAPE_NONE, "" },
		{ "{{a}} {{ b }} {{c}}{{a}}", DMTP_ESCAPE_NONE, "a c a " },
		{ "<p {{a}}>{{b}}<!-- {{c}} --><script>{{d}}</script>", DMTP_ESCAPE_HTML,
		  "b " },
		{ "[{{a}}]({{b}}) {{c}}", DMTP_ESCAPE_MARKDOWN, "a c " },
	};
	struct buffer b;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		buffer_init(&b, 1000);
		dmtp_template_names(slice_str(table[i].text), table[i].escape, collect, &b);
		assert_slice(buffer_slice(&b), table[i].names);
		buffer_free(&b);
	}
	assert_true(dmtp_var_name_valid(SLICE("a_9")));
	assert_false(dmtp_var_name_valid(SLICE("")));
	assert_false(dmtp_var_name_valid(SLICE("aB")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_text),
		cmocka_unit_test(test_html_escapes_in_text_and_leaves_markup_alone),
		cmocka_unit_test(test_which_types_are_escaped),
		cmocka_unit_test(test_without_variables_every_one_is_empty),
		cmocka_unit_test(test_variables_have_names_and_text),
		cmocka_unit_test(test_markdown_escapes_and_leaves_links_alone),
		cmocka_unit_test(test_names),
	};

	return RUN(tests);
}
