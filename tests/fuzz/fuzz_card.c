/* Site cards: read safely; one that was read is written and read again alike. */
#include "fuzz.h"

#include "dmtp/card.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dmtp_card *card, *again;
	struct buffer b;

	if (dmtp_card_decode(slice_mem(data, size), &card) != DMTP_CARD_OK)
		return 0;
	buffer_init(&b, DMTP_CARD_MAX);
	MUST(dmtp_card_encode(card, &b));
	MUST(dmtp_card_decode(buffer_slice(&b), &again) == DMTP_CARD_OK);
	MUST(again->signed_only == card->signed_only);
	MUST(again->hosts_n == card->hosts_n && again->keys_n <= card->keys_n);
	dmtp_card_free(&again);
	dmtp_card_free(&card);
	buffer_free(&b);
	return 0;
}
